"""Examples that were made once, kept in the cache folder.

<cache>/examples/<key>/columns.safetensors   the arrays of the store, read memory-mapped
                       notes.json            places, extras and counts
                       manifest.json         size and SHA-256 of both
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from ptsdk.checkpoint.files import write_json
from ptsdk.checkpoint.kept import kept as kept_in_cache
from ptsdk.checkpoint.tensors import TensorFiles, save_tensors
from ptsdk.data.columns import from_columns, to_columns
from ptsdk.data.pipeline import Encoded

FOLDER, COLUMNS, NOTES = "examples", "columns.safetensors", "notes.json"


def kept(key_of: Callable[[], str], make: Callable[[], Encoded]) -> Encoded:
    """What ``make`` makes, or what it made when it was asked before under the same key; faults are not kept.

    Args:
        key_of: a hash of all that decides it, as it is now.
        make: called when there is no entry.
    """
    return kept_in_cache(FOLDER, key_of, make, read, _write, worth=lambda encoded: not encoded.problems)


def read(folder: Path) -> Encoded:
    """The examples of an entry that is intact."""
    arrays = {name: tensor.numpy() for name, tensor in TensorFiles.of(folder / COLUMNS).items()}
    return from_columns(arrays, json.loads((folder / NOTES).read_text(encoding="utf-8")))


def _write(encoded: Encoded, folder: Path) -> None:
    arrays, notes = to_columns(encoded)
    save_tensors({name: torch.from_numpy(array) for name, array in arrays.items()}, folder / COLUMNS)
    write_json(folder / NOTES, notes)
