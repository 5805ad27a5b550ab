"""One file of a data repository on the hub: ``hf://datasets/org/name[@revision]/path/to/file``."""

from __future__ import annotations

import hashlib
import os
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ptsdk.errors import UserError
from ptsdk.hub import explained, patiently, refuse_damage

HUB = "hf://datasets/"

_PART = r"\w[\w.-]*"
_REVISION = r"refs/(?:convert/[\w.-]+|pr/\d+)|[^/@:]+"
_FILE = re.compile(rf"{HUB}(?P<repository>{_PART}/{_PART})(?:@(?P<revision>{_REVISION}))?/(?P<file>[^@].*)")
_FORM = f"{HUB}org/name[@revision]/path/to/file"


class HubFile(NamedTuple):
    """Where a file lies; the same form as fsspec's, revisions with ``/`` written ``%2F``."""

    repository: str
    revision: str | None
    file: str


def parse(path: str) -> HubFile | None:
    """The parts of ``path``, None where it names no file of a repository."""
    found = _FILE.fullmatch(path)
    if found is None:
        return None
    revision = found["revision"]
    return HubFile(found["repository"], unquote(revision) if revision else None, found["file"])


def fetch(path: str, wanted: HubFile) -> str:
    """The file in the hub's own cache. ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are
    honoured, downloads are resumed, and a hub that cannot be reached is no error for what is cached. A file that
    the hub gives a SHA-256 is checked against it.

    Args:
        path: as the job has it, for messages.

    Raises:
        UserError: no such repository, revision or file, or no access to it.
        RunError: the hub fails, or sends other bytes than it announces, and the cache has not got it.
    """
    if any(char in wanted.file for char in "*?[") or {"", ".", ".."} & set(wanted.file.split("/")):
        raise UserError(f"{path} names no file", hint=f"write {_FORM}, one entry a file")
    return patiently(lambda: _download(path, wanted))


def _download(path: str, wanted: HubFile) -> str:
    from huggingface_hub import hf_hub_download

    with explained(path, f"datasets/{wanted.repository}", wanted.revision, kind="data set", form=_FORM):
        found = hf_hub_download(
            wanted.repository,
            wanted.file,
            repo_type="dataset",
            revision=wanted.revision,
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    refuse_damage(path, Path(found), _has)
    return str(found)


def _has(file: Path, sha256: str) -> bool:
    stat = file.stat()
    return _digest(file, stat.st_size, stat.st_mtime_ns) == sha256


@cache
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    """The SHA-256 of a file, read once a process while it stays as it is."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
