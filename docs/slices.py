"""Blocks of a page that are slices of files which are tested.

A marker stands in the line before the block it fills:

    <!-- slice: contrib/ptsdk-lion/src/ptsdk_lion/optimizer.py#Lion -->     a class or function of a file
    <!-- slice: sdk/pyproject.toml#[project.scripts] -->                    a table of a TOML file
    <!-- new: loss label-smoothing README.md -->                            what `ptsdk new-plugin` writes
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from ptsdk_templates.naming import Names
from ptsdk_templates.rendering import rendered

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"(?P<marker><!-- (?P<what>slice|new): (?P<where>[^>]+?) -->\n)```(?P<tongue>\w*)\n.*?```", re.DOTALL
)


def filled(page: str) -> str:
    """The page with every marked block as its file has it.

    Raises:
        ValueError: a marker without a block, or a file that has no such part.
    """
    found = list(BLOCK.finditer(page))
    markers = len(re.findall(r"<!-- (?:slice|new): ", page))
    if markers != len(found):
        raise ValueError(f"{markers} markers, but {len(found)} of them stand right before a block")
    return BLOCK.sub(lambda m: f"{m['marker']}```{m['tongue']}\n{_text(m['what'], m['where'])}```", page)


def _text(what: str, where: str) -> str:
    place, _, part = where.partition("#")
    if what == "new":
        kind, name, path = place.split()
        text = rendered(Names(kind, name))[path]
    else:
        text = (ROOT / place).read_text("utf-8")
    if not part:
        return text
    return _table(text, part) if part.startswith("[") else _definition(text, part)


def _definition(source: str, name: str) -> str:
    """A class or function at the top of a module, or ``Class.method`` without the class's indent."""
    body = ast.parse(source).body
    found: ast.AST | None = None
    for part in name.split("."):
        found = next((node for node in body if getattr(node, "name", None) == part), None)
        if found is None:
            raise ValueError(f"there is no {name}")
        body = getattr(found, "body", [])
    assert isinstance(found, ast.ClassDef | ast.FunctionDef)
    first = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    lines = source.splitlines()[first - 1 : found.end_lineno]
    return "".join(f"{line[found.col_offset :]}\n" for line in lines)


def _table(source: str, header: str) -> str:
    """A table of a TOML file, up to the next empty line."""
    _, found, rest = source.partition(f"{header}\n")
    if not found:
        raise ValueError(f"there is no {header}")
    return f"{found}{rest.partition(chr(10) * 2)[0].rstrip()}\n"
