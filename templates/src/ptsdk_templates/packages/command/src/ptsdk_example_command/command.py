"""The verb itself, imported when someone types ``ptsdk example-command``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("example-command")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def report(folder: Path, as_json: bool) -> None:
    """The last row of metrics of each run below FOLDER."""
    # Only what the answer needs is imported, and torch is not: the answer comes at once.
    from ptsdk.errors import UserError

    files = sorted(folder.rglob("metrics.jsonl"))
    if not files:
        # Shown without a traceback, the hint below it; the exit code is 2.
        raise UserError(f"there is no run below {folder}", hint="name a folder that holds output directories")
    rows = {str(file.parent): json.loads(file.read_text("utf-8").splitlines()[-1]) for file in files}
    if as_json:
        click.echo(json.dumps(rows))
    else:
        for name, row in rows.items():
            click.echo(f"{name}: step {row['step']}, loss {row['loss']:.4f}")
