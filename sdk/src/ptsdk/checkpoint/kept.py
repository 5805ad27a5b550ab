"""What was made once at some cost, kept in the cache folder under a hash of all that decides it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ptsdk.checkpoint.cache import cache_dir
from ptsdk.checkpoint.files import WriteError, atomic_folder, locked, remove_partials, verify_manifest

T = TypeVar("T")


def kept(
    kind: str,
    key_of: Callable[[], str],
    make: Callable[[], T],
    read: Callable[[Path], T],
    write: Callable[[T, Path], None],
    worth: Callable[[T], bool] = lambda _: True,
) -> T:
    """What ``make`` makes, or what it made when it was asked before under the same key.

    Processes that ask for the same wait for the first: it alone makes it. An entry that is damaged is made anew;
    nothing is kept of files that were changed meanwhile; and where the cache cannot be written nothing is.

    Args:
        kind: the folder of such entries in the cache.
        key_of: a hash of all that decides it, as it is now.
        make: called when there is no entry.
        read: it, from the folder of an entry that is intact.
        write: put it into the folder of a new entry.
        worth: whether it is to be kept.
    """
    key = key_of()
    folder = cache_dir() / kind / key
    with _alone(folder):
        if not verify_manifest(folder):
            return read(folder)
        made = make()
        if worth(made) and key_of() == key:
            with suppress(WriteError), atomic_folder(folder, manifest=True, replace=True) as partial:
                write(made, partial)
        return made


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Inside, no other process has this entry; where there can be no lock, any may."""
    with ExitStack() as stack:
        with suppress(OSError, WriteError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder.with_suffix(".lock"), wait=True))
            remove_partials(folder.parent, folder.name)
        yield
