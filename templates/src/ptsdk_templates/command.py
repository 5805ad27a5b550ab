"""``ptsdk new-plugin``: a template copied under a new name, all of it or nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from ptsdk.errors import RunError, UserError
from ptsdk_templates.naming import Names
from ptsdk_templates.rendering import kinds, rendered


@click.command("new-plugin")
@click.argument("kind")
@click.argument("name")
@click.option(
    "--dir", "folder", default=".", type=click.Path(path_type=Path), help="Where to put it; the working directory."
)
def new_plugin(kind: str, name: str, folder: Path) -> None:
    """Write the package ptsdk-NAME, which contributes the component NAME of a KIND.

    It installs, and its tests pass, without an edit; then make it yours."""
    names = Names.checked(kind, name, kinds())
    target = folder / names.dist
    write(rendered(names), target)
    click.echo(f"wrote {target}\n\nnext:\n    cd {target}\n    pip install -e '.[test]'\n    pytest")
    click.echo(f"    ptsdk conform {names.dist}\n    ptsdk show {kind} {names.dist}/{name}")


def write(files: Mapping[str, str], target: Path) -> None:
    """Make the folder ``target`` with its files, in one rename.

    Raises:
        UserError: it exists, or what should hold it is no folder.
        RunError: the disk refuses.
    """
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} exists already", hint="choose another name or --dir, or remove it")
    if target.parent.exists() and not target.parent.is_dir():
        raise UserError(f"{target.parent} is not a folder", hint="give --dir a folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error}") from error
    try:
        for name, text in files.items():
            path = hidden / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        hidden.chmod(0o755)  # mkdtemp's is for its owner alone
        hidden.rename(target)
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
