"""``ptsdk plugins``: what is installed and its health."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.output import print_json, print_table
from ptsdk.registry import kind_named

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext


@click.command()
@click.option("--kind", help="Only what contributes to this kind, and only that part of it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def plugins(context: CliContext, kind: str | None, as_json: bool) -> None:
    """Installed plugins, their health and what they contribute."""
    records = context.plugins.as_json()
    if kind:
        records = _of_kind(records, kind_named(kind).name)
    if as_json:
        print_json(records)
        return
    advice = {record.dist: record.advice for record in context.plugins.records}
    print_table([(r["dist"], r["version"], r["status"], _told(r, advice[r["dist"]])) for r in records])


def _of_kind(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    narrowed = [{**r, "components": [c for c in r["components"] if c["kind"] == kind]} for r in records]
    return [record for record in narrowed if record["components"]]


def _told(record: dict[str, Any], advice: str) -> str:
    return record["error"] or "; ".join(filter(None, (_contents(record), advice)))


def _contents(record: dict[str, Any]) -> str:
    """``3 adapter (lora, ...), 1 command (merge)``; core's long list is only counted."""
    counts = Counter(component["kind"] for component in record["components"])
    if len(record["components"]) > 12:
        return ", ".join(f"{count} {kind}" for kind, count in counts.items())
    names = {kind: [c["name"] for c in record["components"] if c["kind"] == kind] for kind in counts}
    return "; ".join(f"{kind}: {', '.join(of_kind)}" for kind, of_kind in names.items()) or "nothing"
