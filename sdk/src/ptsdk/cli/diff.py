"""``ptsdk diff``: why two runs differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.output import print_json, print_table

if TYPE_CHECKING:
    from ptsdk.checkpoint.reproduction import Difference, Parting, RunDiff

MAX_SHOWN = 60


@click.command()
@click.argument("first", metavar="RUN1", type=click.Path(path_type=Path))
@click.argument("second", metavar="RUN2", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def diff(ctx: click.Context, first: Path, second: Path, as_json: bool) -> None:
    """Explain why two runs differ: their job, versions, data, template, model, machine, and the first step
    at which their metrics part. RUN1 and RUN2 are output directories.

    Exit code 0 where nothing that matters differs, 1 where something does."""
    from ptsdk.checkpoint.reproduction import diff_runs

    found = diff_runs(first, second)
    if as_json:
        print_json({"first": str(first), "second": str(second), **found.as_dict()})
    else:
        _print(found)
    ctx.exit(0 if found.same else 1)


def _print(found: RunDiff) -> None:
    for section, differences in {**found.differences, "without effect": found.without_effect}.items():
        if differences:
            click.echo(section)
            print_table([_row(difference) for difference in differences], indent=2)
    click.echo(_parted(found.parting) if found.parting else f"metrics: {_agreement(found.steps)}")


def _row(difference: Difference) -> tuple[str, str]:
    return difference.path.removeprefix("job."), f"{_short(difference.first)} -> {_short(difference.second)}"


def _parted(parting: Parting) -> str:
    if parting.first is None or parting.second is None:
        return f"metrics: the same up to step {parting.step}, where only one of the runs goes on"
    values = (f"{name} {_value(parting.first, name)} -> {_value(parting.second, name)}" for name in parting.first)
    return f"metrics part at step {parting.step}: {', '.join(values)}"


def _value(row: Mapping[str, Any], name: str) -> str:
    return repr(row[name]) if name in row else "none"


def _agreement(rows: int) -> str:
    return f"{rows} rows, the same in both" if rows else "none to compare"


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
