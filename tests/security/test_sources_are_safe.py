"""No package of the repository opens a pickle, loads YAML with tags, or runs text as code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "tarfile", "zipfile"}
CALLS = {"eval", "exec", "__import__", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system",
         "jinja2.Template", "jinja2.Environment", "numpy.load", "np.load"}  # fmt: skip
KEYWORDS = {("trust_remote_code", True), ("allow_pickle", True), ("shell", True), ("weights_only", False)}
ALLOWED = {("_importing.py", "exec")}
"""A local file that the job names, executed as exactly the bytes that were hashed."""


def sources() -> list[Path]:
    return [path for pattern in ("sdk", "plugins/*", "contrib/*") for path in ROOT.glob(f"{pattern}/src/**/*.py")]


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def unsafe(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            if (name := name_of(node.func)) in CALLS:
                yield name
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg, value) in KEYWORDS:
                    yield str(keyword.arg)


def test_nothing_unsafe_is_called() -> None:
    assert len(sources()) > 150
    found = {(path.name, name) for path in sources() for name in unsafe(ast.parse(path.read_text("utf-8")))}
    assert found <= ALLOWED


@pytest.mark.parametrize(
    "text", ["import pickle", "from pickle import loads", "torch.load(x)", "f(trust_remote_code=True)", "eval('1')"]
)
def test_what_is_unsafe_is_seen(text: str) -> None:
    assert list(unsafe(ast.parse(text)))
