"""Documents cut so that no query is multiplied with many keys it does not see.

N tokens of B documents, H query heads, E head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class Band(NamedTuple):
    """Queries and all the keys that any of them sees, as places among the N tokens."""

    queries: slice
    keys: slice
    mask: Tensor | None
    """Added to the scores; None where each query sees the keys up to its own."""


def bands(bounds: Tensor, q_NHE: Tensor, window: int | None) -> Iterator[Band]:
    """Each document whole; in bands as wide as the window where it is longer than that.

    Args:
        bounds: int64 [B + 1] on the CPU: where documents begin, and N.
        q_NHE: queries; masks are on their device and in their dtype.
        window: how many tokens a query sees, itself included; None for all before it.

    Raises:
        RuntimeError: the documents have another number of tokens.
    """
    ends: list[int] = bounds.tolist()
    if ends[-1] != len(q_NHE):
        raise RuntimeError(f"documents of {ends[-1]} tokens in all do not cover {len(q_NHE)}")
    for start, end in pairwise(ends):
        step = window or max(1, end - start)
        for first in range(start, end, step):
            queries, seen = slice(first, min(first + step, end)), max(start, first - step + 1)
            mask = None if first == start else band_mask(queries, seen, step, q_NHE)
            yield Band(queries, slice(seen, queries.stop), mask)


def band_mask(queries: slice, seen: int, window: int, like: Tensor) -> Tensor:
    """0 where a query sees a key of ``seen..queries.stop``, else -inf: not later, not ``window`` earlier."""
    keys = torch.arange(seen, queries.stop, device=like.device)
    distance = keys[queries.start - seen :, None] - keys
    return like.new_zeros(distance.shape).masked_fill_((distance < 0) | (distance >= window), -torch.inf)
