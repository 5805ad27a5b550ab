"""Which files a piece of code wrote, wherever it did."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_watching: list[set[Path]] = []


@contextmanager
def written_files(folder: Path) -> Iterator[set[Path]]:
    """Inside, the working directory, the home and the place for temporary files are new folders in ``folder``.

    Yields:
        a set that has, at the end, the absolute path of every file that is there and was not in ``folder``
        before, or that was opened elsewhere for writing. What libraries keep in the user's cache is left out.
    """
    found, before, caches = set[Path](), _files(folder), [Path.home() / ".cache", folder.absolute() / "home" / ".cache"]
    with pytest.MonkeyPatch.context() as patch:
        places = {name: folder / name for name in ("cwd", "home", "tmp")}
        for place in places.values():
            place.mkdir()
        patch.chdir(places["cwd"])
        patch.setenv("HOME", str(places["home"]))
        patch.delenv("XDG_CACHE_HOME", raising=False)
        patch.setenv("TMPDIR", str(places["tmp"]))
        patch.setattr(tempfile, "tempdir", str(places["tmp"]))
        _install()
        _watching.append(found)
        try:
            yield found
        finally:
            _watching.remove(found)
    opened = {path for path in found if path.is_file() and path not in before}
    written = opened | _files(folder) - before
    found.clear()
    found.update(path for path in written if not any(path.is_relative_to(cache) for cache in caches))


def _files(folder: Path) -> set[Path]:
    return {path.absolute() for path in folder.rglob("*") if path.is_file()}


@cache
def _install() -> None:
    """The hook that sees what is opened; python has no way to take one back."""
    sys.addaudithook(_opened)


def _opened(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event != "open":
        return
    path, _, flags = arguments
    if isinstance(path, str | bytes | os.PathLike) and flags & WRITING:
        for found in _watching:
            found.add(Path(os.path.abspath(os.fsdecode(path))))
