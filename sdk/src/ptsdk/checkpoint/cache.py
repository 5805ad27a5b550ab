"""Fetched files on this machine: where they are kept, and hashing each of them only once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from ptsdk.checkpoint.files import WriteError, atomic_file, sha256_file


def cache_dir() -> Path:
    """``$PTSDK_CACHE``, else ``ptsdk`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("PTSDK_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "ptsdk"


def downloaded(path: Path) -> Path | None:
    """The folder of downloads that ``path`` lies in: this cache, or the hub's. None anywhere else."""
    from huggingface_hub import constants

    resolved = path.expanduser().resolve()
    folders = (cache_dir(), Path(constants.HF_HOME), Path(constants.HF_HUB_CACHE))
    return next((folder for folder in folders if resolved.is_relative_to(folder.resolve())), None)


def verified(path: Path, sha256: str) -> bool:
    """Whether the file has this SHA-256.

    A file that matched once is not read again while its size, time of change and inode stay; the
    record of that is kept in the cache folder. In any doubt it is read and hashed.
    """
    if _recorded(_record(path)) == _stamp(path, sha256):
        return True
    if sha256_file(path) != sha256:
        return False
    remember(path, sha256)
    return True


def remember(path: Path, sha256: str) -> None:
    """Record that the file was just found to have this SHA-256."""
    try:
        with atomic_file(_record(path)) as partial:
            partial.write_text(json.dumps(_stamp(path, sha256)), encoding="utf-8")
    except WriteError:
        pass  # a cache that cannot be written costs a hash next time, and nothing else


def _record(path: Path) -> Path:
    return cache_dir() / "verified" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()}.json"


def _stamp(path: Path, sha256: str) -> dict[str, str | int]:
    stat = path.stat()
    return {
        "sha256": sha256,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "ctime_ns": stat.st_ctime_ns,
        "inode": stat.st_ino,
    }


def _recorded(record: Path) -> object:
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
