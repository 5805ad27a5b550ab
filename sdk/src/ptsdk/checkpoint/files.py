"""Files that are either complete on disk or not there: folders made aside, hashed, renamed.

Every writer of a run goes through ``atomic_folder`` or ``atomic_file``; a process killed at any
moment leaves at most a hidden ``*.partial``, which ``remove_partials`` takes away later.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptsdk.errors import RunError

MANIFEST = "manifest.json"
PARTIAL = ".partial"
PIECE = 2**24
"""Bytes that are hashed at once. After each piece a thread waits for the interpreter's lock: with the
256 KiB of ``hashlib.file_digest`` it waits, beside a busy thread, for many times as long as it hashes."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class WriteError(RunError):
    """Something could not be written; nothing half-written is left under the final name."""


@contextmanager
def atomic_folder(path: Path, *, manifest: bool = False, replace: bool = False) -> Iterator[Path]:
    """A folder that appears at ``path`` complete and durable, or not at all.

    Write into the folder that is yielded. When the block ends, every file is fsynced, the
    folder is renamed to ``path`` and the parent is fsynced; an exception removes it instead.

    Args:
        path: where it appears; its parent is made.
        manifest: also write ``manifest.json``, the size and SHA-256 of every file.
        replace: put it in the place of a folder that is there (moved aside first, so for an
            instant there is none); otherwise an existing ``path`` is refused.

    Raises:
        WriteError: no room, no permission, or ``path`` exists.
    """
    folder = _partial(path)
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    try:
        with _write_errors(path):
            yield folder
            if manifest:
                write_manifest(folder)
            _settle(folder)
            _put_in_place(folder, path, replace)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """The same for one file: write to the path that is yielded; it replaces ``path`` at the end."""
    partial = _partial(path)
    try:
        with _write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON, not atomically (see ``atomic_folder``). Floats keep every bit."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_manifest(folder: Path) -> None:
    """Write ``manifest.json``: ``{"files": {name: {"sha256", "size"}}}`` of everything below ``folder``."""
    files = {
        name: {"sha256": sha256_file(folder / name), "size": (folder / name).stat().st_size}
        for name in _content(folder)
    }
    write_json(folder / MANIFEST, {"files": files})


def _content(folder: Path) -> list[str]:
    """What a manifest lists: every file but itself."""
    files = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
    return [name for name in files if name != MANIFEST]


def verify_manifest(folder: Path) -> list[str]:
    """What is wrong with a folder written with a manifest; empty when every file is as it was written, and there is
    no other, but hidden ones, which file systems leave."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        damaged = [problem for name, entry in files.items() if (problem := _damage(folder, name, entry))]
        unknown = [name for name in _content(folder) if name not in files and not Path(name).name.startswith(".")]
        return damaged + [f"{name} is not in {MANIFEST}" for name in unknown]
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except OSError as error:
        return [f"a file cannot be read: {error}"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{MANIFEST} is malformed"]


def _damage(folder: Path, name: str, entry: dict[str, Any]) -> str:
    file = folder / name
    if not file.is_file():
        return f"{name} is missing"
    if (size := file.stat().st_size) != entry["size"]:
        return f"{name} has {size} bytes instead of {entry['size']}"
    return "" if sha256_file(file) == entry["sha256"] else f"{name} does not match its SHA-256"


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(min(PIECE, path.stat().st_size) or 1))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def remove_folder(path: Path) -> None:
    """Remove a folder so that no reader ever sees it in part: renamed to a hidden name first."""
    aside = _partial(path)
    with _write_errors(path):
        path.rename(aside)
        shutil.rmtree(aside)


def remove_partials(parent: Path, name: str = "") -> None:
    """Take away what killed processes left in ``parent``, or there of what was to be called ``name``. The caller
    holds the lock that they held."""
    for left in parent.glob(f".{name}*{PARTIAL}"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file ``path``; the kernel lets go of it when the process dies, however it dies.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is off.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")


def _put_in_place(folder: Path, path: Path, replace: bool) -> None:
    if not path.exists():
        folder.rename(path)
        _sync(path.parent)
        return
    if not replace:
        raise WriteError(f"{path} exists already")
    before = _partial(path)
    path.rename(before)
    folder.rename(path)
    _sync(path.parent)
    shutil.rmtree(before)


def _settle(folder: Path) -> None:
    """Bring everything to the disk, with the permissions the umask gave the folder itself: some
    writers, safetensors among them, make files that only their owner may read."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Say in plain words which file could not be written and why."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror or str(error)
        room = "\n    make room, or lower train.keep_last" if error.errno in _NO_ROOM else ""
        raise WriteError(f"cannot write {path}: {what}{room}") from error
