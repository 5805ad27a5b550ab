"""Lengths into packs of 4096: ``pack.py FOLDER {ptsdk|trl|torchtune}``. Each is given what its interface asks for:
ptsdk lengths, TRL and torchtune rows of tokens, of which they move every one; torchtune fewer rows, in Python."""

from __future__ import annotations

import sys
import time

import numpy as np

from tests.benchmarks.contestants.report import peak_bytes, told

CAPACITY = 4096
ROWS = {"ptsdk": 1_000_000, "trl": 100_000, "torchtune": 10_000}


def lengths(rows: int) -> np.ndarray:
    """As those of chats: lognormal, some hundreds of tokens, a long tail."""
    drawn = np.random.default_rng(0).lognormal(6.0, 1.0, rows)
    return np.clip(drawn.astype(np.int64), 1, CAPACITY)


def ptsdk(rows: np.ndarray) -> tuple[float, int]:
    from ptsdk.data.packing import pack

    start = time.perf_counter()
    _, bounds = pack(rows, CAPACITY)
    return time.perf_counter() - start, len(bounds) - 1


def trl(rows: np.ndarray) -> tuple[float, int]:
    import pyarrow as pa
    from datasets import Dataset
    from trl import pack_dataset

    offsets = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.zeros(offsets[-1], np.int32)))
    dataset = Dataset(pa.table({"input_ids": column}))
    start = time.perf_counter()
    packed = pack_dataset(dataset, CAPACITY, "bfd", map_kwargs={"batch_size": len(rows)})
    return time.perf_counter() - start, len(packed)


def torchtune(rows: np.ndarray) -> tuple[float, int]:
    from torchtune.datasets import PackedDataset

    samples = [{"tokens": [0] * n, "labels": [0] * n} for n in rows.tolist()]
    start = time.perf_counter()
    packed = PackedDataset(samples, max_seq_len=CAPACITY)
    return time.perf_counter() - start, len(packed)


def main() -> None:
    name = sys.argv[2]
    rows = lengths(ROWS[name])
    before = peak_bytes()
    seconds, packs = globals()[name](rows)
    told(
        rows_per_second=len(rows) / seconds,
        efficiency=int(rows.sum()) / (packs * CAPACITY),
        grown_bytes=peak_bytes() - before,
    )


if __name__ == "__main__":
    main()
