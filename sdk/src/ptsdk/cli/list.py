"""``ptsdk list``: the components a job can name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.output import print_json, print_table
from ptsdk.registry import Entry, kind_named
from ptsdk.specs import KINDS

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext


@click.command("list")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_components(context: CliContext, kind: str | None, as_json: bool) -> None:
    """Components by kind, or those of one KIND."""
    kinds = [kind_named(kind).name] if kind else list(KINDS)
    registry = context.registry
    if as_json:
        print_json([_json(entry) for name in kinds for entry in registry.entries(name)])
        return
    for name in kinds:
        rows = [
            (use, entry.dist, entry.spec.summary)
            for use, entry in zip(registry.names(name), registry.entries(name), strict=True)
        ]
        if rows or kind:
            click.secho(name, bold=True)
            print_table(rows or [("none installed",)], indent=2)


def _json(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.spec.name,
        "dist": entry.dist,
        "version": entry.version,
        "target": entry.spec.target,
        "summary": entry.spec.summary,
    }
