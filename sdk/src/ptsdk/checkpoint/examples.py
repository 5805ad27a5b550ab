"""Examples that were made once, kept in the cache folder.

<cache>/examples/<key>/columns.safetensors   the arrays of the store, read memory-mapped
                       notes.json            places, extras and counts
                       manifest.json         size and SHA-256 of both
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from ptsdk.checkpoint.cache import cache_dir
from ptsdk.checkpoint.files import WriteError, atomic_folder, locked, remove_partials, verify_manifest, write_json
from ptsdk.checkpoint.tensors import TensorFiles, save_tensors
from ptsdk.data.columns import from_columns, to_columns
from ptsdk.data.pipeline import Encoded

FOLDER, COLUMNS, NOTES = "examples", "columns.safetensors", "notes.json"


def kept(key_of: Callable[[], str], make: Callable[[], Encoded]) -> Encoded:
    """What ``make`` makes, or what it made when it was asked before under the same key.

    Processes that ask for the same wait for the first: it alone makes it. An entry that is damaged is made anew;
    faults are not kept, nor anything of files that were changed meanwhile; and where the cache cannot be written
    nothing is.

    Args:
        key_of: a hash of all that decides it, as it is now.
        make: called when there is no entry.
    """
    key = key_of()
    folder = cache_dir() / FOLDER / key
    with _alone(folder):
        if not verify_manifest(folder):
            return read(folder)
        encoded = make()
        if not encoded.problems and key_of() == key:
            _write(folder, encoded)
        return encoded


def read(folder: Path) -> Encoded:
    """The examples of an entry that is intact."""
    arrays = {name: tensor.numpy() for name, tensor in TensorFiles.of(folder / COLUMNS).items()}
    return from_columns(arrays, json.loads((folder / NOTES).read_text(encoding="utf-8")))


def _write(folder: Path, encoded: Encoded) -> None:
    arrays, notes = to_columns(encoded)
    with suppress(WriteError), atomic_folder(folder, manifest=True, replace=True) as partial:
        save_tensors({name: torch.from_numpy(array) for name, array in arrays.items()}, partial / COLUMNS)
        write_json(partial / NOTES, notes)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Inside, no other process has this entry; where there can be no lock, any may."""
    with ExitStack() as stack:
        with suppress(OSError, WriteError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder.with_suffix(".lock"), wait=True))
            remove_partials(folder.parent, folder.name)
        yield
