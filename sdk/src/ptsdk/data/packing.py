"""Whole documents into sequences of a fixed capacity: best fit, longest first.

Best-Fit-Decreasing takes the lengths from the longest to the shortest and puts each into the bin
with the least room that still holds it; see "Fewer Truncations Improve Language Modeling"
(arXiv:2404.10830). Among bins with equal room the one that came to it first is taken, as TRL does.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def best_fit_decreasing(lengths: NDArray[np.integer], capacity: int) -> list[Int64]:
    """Bins of indices into ``lengths``.

    Args:
        lengths: integers [n], each of 1 to ``capacity``.
        capacity: what the lengths of a bin add up to at most.

    Returns:
        int64 arrays, in the order the bins were opened; inside one the longest comes first, equal
        lengths in the order they are given in.

    Raises:
        ValueError: a length that is below 1 or above ``capacity``.
    """
    order, bounds = pack(lengths, capacity)
    return [order[start:end] for start, end in pairwise(bounds)]


def pack(lengths: NDArray[np.integer], capacity: int) -> tuple[Int64, Int64]:
    """``best_fit_decreasing`` in two arrays, without an object a bin.

    Returns:
        order: int64 [n], indices into ``lengths``, bin after bin.
        bounds: int64 [bins + 1]; bin ``b`` is ``order[bounds[b]:bounds[b + 1]]``.

    Raises:
        ValueError: as above.
    """
    lengths = np.asarray(lengths)
    if lengths.size and not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise ValueError(f"lengths of {lengths.min()} to {lengths.max()} do not fit bins of {capacity}")
    longest_first = np.argsort(-lengths.astype(np.int64), kind="stable")
    values, counts = np.unique(lengths, return_counts=True)
    bin_ids = np.asarray(_assign(values[::-1].tolist(), counts[::-1].tolist(), capacity), dtype=np.int64)
    by_bin = np.argsort(bin_ids, kind="stable")
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(bin_ids), dtype=np.int64)])
    return longest_first[by_bin], bounds


def _assign(values: list[int], counts: list[int], capacity: int) -> list[int]:
    """The bin of each item, items from the longest to the shortest.

    Equal lengths are placed together: the best bin for one of them stays the best for the next
    until it is full for them, because its room is the least that holds one, and then only shrinks.
    So a bin with room ``r`` takes ``r // length`` of them at once, and the work is by distinct
    lengths and rooms, not by item.
    """
    assigned: list[int] = []
    waiting: dict[int, list[int]] = defaultdict(list)  # room -> bins with exactly that room, oldest first
    rooms = 0  # bit r is set when some bin waits with room r
    opened = 0
    for length, count in zip(values, counts, strict=True):
        while count:
            fitting = rooms >> length
            room = length + (fitting & -fitting).bit_length() - 1 if fitting else capacity
            each = room // length
            wanted = -(-count // each)
            if fitting:
                bins = waiting[room][:wanted]
                del waiting[room][:wanted]
                if not waiting[room]:
                    rooms ^= 1 << room
            else:
                bins = list(range(opened, opened + wanted))
                opened += wanted
            placed = min(count, len(bins) * each)
            assigned += bins[:placed] if each == 1 else np.repeat(bins, each)[:placed].tolist()
            count -= placed
            full, rest = divmod(placed, each)
            for left, group in ((room - each * length, bins[:full]), (room - rest * length, bins[full:])):
                if group and left:
                    waiting[left] += group
                    rooms |= 1 << left
    return assigned
