"""Folders from elsewhere: nothing in them may lead out of them."""

from __future__ import annotations

from pathlib import Path

from ptsdk.errors import Problem, UserError

SUFFIXES = (".json", ".jinja", ".safetensors", ".model", ".txt")
"""What is read of a checkpoint or an adapter."""


def refuse_links_out(folder: Path) -> None:
    """See that every file that may be read lies in the folder itself; files of the hub's cache, which
    are links, in the cache of their repository.

    Raises:
        UserError: a link leads out.
    """
    snapshot = folder.resolve()
    cached = snapshot.parent.name == "snapshots" and (snapshot.parent.parent / "blobs").is_dir()
    root = snapshot.parent.parent if cached else snapshot
    templates = folder / "additional_chat_templates"
    for file in (*folder.iterdir(), *(templates.iterdir() if templates.is_dir() else ())):
        if file.suffix in SUFFIXES and not file.resolve().is_relative_to(root):
            hint = "a link can name any file of this machine; copy the file into the folder if you trust it"
            raise UserError(Problem(f"a link that leaves the folder, to {file.resolve()}", hint, str(file)))
