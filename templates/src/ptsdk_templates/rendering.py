"""A template's files under new names.

A template is a whole package with placeholders for names: ``example-loss`` for the component (hence
``ptsdk-example-loss`` for the dist), ``example_loss`` in modules, and ``Example`` where a class
name begins. So it can be linted, installed and tested as it lies there.
"""

from __future__ import annotations

import re
from pathlib import Path

from ptsdk.errors import UserError
from ptsdk.specs import KINDS
from ptsdk_templates.naming import Names

PACKAGES = Path(__file__).with_name("packages")
MADE = {"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", "runs", "dist", "build"}
"""What python and its tools leave in a template that was used in place."""
CLASS = re.compile(r"\bExample([A-Z]\w*)")


def kinds() -> list[str]:
    """The kinds that have a template, in the order of ``KINDS``."""
    there = {path.name for path in PACKAGES.iterdir() if (path / "pyproject.toml").is_file()}
    return [kind for kind in KINDS if kind in there]


def template(kind: str) -> dict[str, str]:
    """The files of a kind's template: path -> text."""
    root = PACKAGES / kind
    paths = (path for path in sorted(root.rglob("*")) if path.is_file())
    names = {path.relative_to(root): path for path in paths}
    return {name.as_posix(): path.read_text("utf-8") for name, path in names.items() if not MADE & set(name.parts)}


def rendered(names: Names) -> dict[str, str]:
    """The files of a new package: path -> text.

    Raises:
        UserError: a class would get the name of something that its file imports.
    """
    files = template(names.kind)
    for text in files.values():
        taken = {names.prefix + rest for rest in CLASS.findall(text)} & set(re.findall(r"\b[A-Z]\w*", text))
        if taken:
            raise UserError(
                f"{names.name!r} makes the class {min(taken)}, which the SDK has already", hint="choose another name"
            )
    return {_renamed(path, names): _renamed(text, names) for path, text in files.items()}


def _renamed(text: str, names: Names) -> str:
    kind = names.kind
    text = text.replace(f"example-{kind}", names.name).replace(f"example_{kind.replace('-', '_')}", names.identifier)
    return CLASS.sub(rf"{names.prefix}\1", text)
