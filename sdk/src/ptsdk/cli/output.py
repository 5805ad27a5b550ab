"""What a command prints: one JSON document, or tables for a person."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

import click

GAP = "  "


def print_json(value: Any) -> None:
    """Print ``value`` as the one JSON document of a ``--json`` command."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(rows: Sequence[Sequence[str]], indent: int = 0) -> str:
    """Rows in aligned columns; the last column wraps at the width of the terminal."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    used = indent + sum(widths) + len(GAP) * len(widths)
    room = max(shutil.get_terminal_size((100, 24)).columns - used, 24)
    lines = []
    for row in rows:
        start = " " * indent + "".join(cell.ljust(width) + GAP for cell, width in zip(row, widths, strict=False))
        wrapped = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        lines += [(start if i == 0 else " " * used) + text for i, text in enumerate(wrapped)]
    return "\n".join(line.rstrip() for line in lines)


def print_table(rows: Sequence[Sequence[str]], indent: int = 0) -> None:
    """Print ``table(rows)``; nothing for no rows."""
    if rows:
        click.echo(table(rows, indent))
