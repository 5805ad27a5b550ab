"""Examples as plain arrays and JSON: for a file, or for another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptsdk.data.pipeline import Encoded
from ptsdk.data.report import Count, Tally
from ptsdk.data.store import ExampleStore
from ptsdk.errors import Problem

COLUMNS: dict[str, type[np.generic]] = {
    "tokens": np.int32,
    "supervised": np.bool_,
    "document_ends": np.int64,
    "example_ends": np.int64,
    "supervised_tokens": np.int32,
    "file_ids": np.int32,
    "lines": np.int64,
}
"""The arrays of a store, and the type of their items."""


def to_columns(encoded: Encoded) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of the store, and all else as JSON takes it."""
    store = encoded.store
    notes = {
        "extras": [[index, text] for index, text in store.extras.items()],
        "files": list(store.files),
        "tally": asdict(encoded.tally),
        "problems": [asdict(problem) for problem in encoded.problems],
    }
    return {name: getattr(store, name) for name in COLUMNS}, notes


def from_columns(arrays: Mapping[str, NDArray[Any]], notes: Mapping[str, Any]) -> Encoded:
    """The inverse of ``to_columns``."""
    columns = {name: arrays[name] for name in COLUMNS}
    store = ExampleStore(**columns, extras=dict(notes["extras"]), files=tuple(notes["files"]))
    tally = notes["tally"]
    dropped = {reason: Count(**count) for reason, count in tally["dropped"].items()}
    return Encoded(
        store,
        Tally(tally["rows"], Count(**tally["truncated"]), dropped),
        tuple(Problem(**problem) for problem in notes["problems"]),
    )
