"""The public surface changes only when someone says so: docs/compatibility.md."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from ptsdk.job.schema import job_schema
from ptsdk.plugins import DiscoveryOptions, scan
from ptsdk.registry import Registry
from ptsdk.specs import API
from tests.conftest import docs_script

ROOT = Path(__file__).parents[2]


surface = docs_script("surface")
Change = Callable[[list[str]], list[str]]


def test_it_is_as_announced(capsys: pytest.CaptureFixture[str]) -> None:
    assert surface.main([]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "flags", "written"),
    [
        (lambda lines: [*lines, "ptsdk.new(x: int) -> int"], [], False),
        (lambda lines: [*lines, "ptsdk.new(x: int) -> int"], ["--accept"], True),
        (lambda lines: lines[:-1], ["--accept"], False),
        (lambda lines: [*lines[:-1], "another"], ["--accept"], False),
        (lambda lines: lines[:-1], ["--breaking"], True),
    ],
)
def test_a_change_has_to_be_announced(
    change: Callable[[list[str]], list[str]],
    flags: list[str],
    written: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = surface.surface()
    (tmp_path / "api.txt").write_text("\n".join(before) + "\n")
    monkeypatch.setattr(surface, "FILE", tmp_path / "api.txt")
    monkeypatch.setattr(surface, "surface", lambda: change(before))
    assert surface.main(flags) == (0 if written else 1)
    assert ((tmp_path / "api.txt").read_text().splitlines() == change(before)) == written


def test_a_bound_that_is_tightened_is_a_break() -> None:
    schema = job_schema(Registry(scan(DiscoveryOptions(safe=True))))[0]
    before = surface.job_options(schema)
    assert set(before) <= set(surface.surface())
    schema["$defs"]["optimizer.ptsdk.adamw"]["properties"]["lr"]["anyOf"][0]["minimum"] = 1
    gone, added = surface.differences(before, surface.job_options(schema))
    option = "job optimizer.ptsdk.adamw.lr: "
    assert gone == [option + '{"default": 0.0002, "minimum": 0, "type": "number"}']
    assert added == [option + '{"default": 0.0002, "minimum": 1, "type": "number"}']


def test_the_templates_use_public_modules_alone() -> None:
    """What strangers copy rests on what is promised."""
    public = {
        *surface._modules(),
        "ptsdk.checkpoint.weights",
        "ptsdk.builtin.rollout",
        "ptsdk.builtin.tiny",
        "ptsdk.cli.main",
    }
    packages = ROOT / "templates" / "src" / "ptsdk_templates" / "packages"
    for path in packages.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used = {name for name in names if name and name.partition(".")[0] == "ptsdk"}
            assert used <= public, (path, used - public)


def test_the_number_is_in_the_file() -> None:
    assert (ROOT / "docs" / "api.txt").read_text("utf-8").splitlines()[0] == f"api {API}"
