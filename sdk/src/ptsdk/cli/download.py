"""``ptsdk download MODEL``: a model on this machine, before a job asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext


@click.command()
@click.argument("model")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Copy it here, which must not exist; else it is in a cache."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def download(context: CliContext, model: str, out: Path | None, as_json: bool) -> None:
    """Fetch MODEL, a URL such as hf://org/name, and tell where it is. Jobs that name it then need no network."""
    from ptsdk.checkpoint.sources import open_checkpoint
    from ptsdk.cli.output import print_json
    from ptsdk.errors import UserError

    if out is not None and out.exists():
        raise UserError(f"{out} exists already", hint="choose another --out, or move it away")
    checkpoint = open_checkpoint(model, Path(), context.registry)
    found = checkpoint.path
    size = sum(file.stat().st_size for file in ([found] if found.is_file() else found.rglob("*")) if file.is_file())
    if out is not None:
        copy(found, out)
        found = out
    if as_json:
        architectures = checkpoint.config.get("architectures") or []
        print_json({"path": str(found), "bytes": size, "architectures": architectures})
    else:
        click.echo(found)


def copy(found: Path, out: Path) -> None:
    """A file or folder at ``out``, complete or not at all; what links lead to is copied.

    Raises:
        WriteError: the disk is full, or similar.
    """
    import shutil

    from ptsdk.checkpoint.files import atomic_file, atomic_folder

    if found.is_dir():
        with atomic_folder(out) as partial:
            shutil.copytree(found, partial, dirs_exist_ok=True)
    else:
        with atomic_file(out) as partial:
            shutil.copyfile(found, partial)
