"""Which examples make up an epoch: a pure function of the sizes, the weights, the seed and the epoch.

Randomness is the raw output of Philox under a ``SeedSequence``, both of which numpy promises never
to change (NEP 19), unlike ``Generator.permutation``: an order is the same on every machine and version.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ptsdk.errors import Problem, UserError

Int64 = NDArray[np.int64]

EPOCH, DATASET, PACKS = range(3)
"""What a permutation is for; part of its key, so that none of them is drawn twice."""


def permutation(n: int, *key: int) -> Int64:
    """A permutation of ``range(n)`` decided by ``key`` alone, non-negative integers."""
    bits = np.random.Philox(np.random.SeedSequence(key)).random_raw(n)
    return np.argsort(bits, kind="stable")


def epoch_examples(
    sizes: Sequence[int], weights: Sequence[float | None], seed: int, epoch: int, shuffle: bool = True
) -> Int64:
    """Indices of the examples of one epoch, ``sum(sizes)`` of them, in the order they are met.

    Without weights every example comes once. With weights (a set without one counts as 1) each set
    gets its ``quotas`` and continues through its own endless sequence of permutations where the
    epoch before left off, so that over the epochs its examples are used equally often.

    Args:
        sizes: examples of each set; set ``d`` has the indices from ``sum(sizes[:d])`` on.
        weights: share of each set in the mixture, or None.
        seed: non-negative.
        epoch: from 0.
        shuffle: False keeps the sets in the given order, or with weights interleaves them evenly,
            each in the order of its file.

    Raises:
        UserError: a set gets no example at all (see ``quotas``).
    """
    starts = np.cumsum([0, *sizes])
    if all(weight is None for weight in weights):
        return permutation(int(starts[-1]), seed, EPOCH, epoch) if shuffle else np.arange(starts[-1])
    quota = quotas(sizes, weights)
    parts = [
        starts[d] + _draws(size, quota[d] * epoch, quota[d] * (epoch + 1), (seed, DATASET, d) if shuffle else None)
        for d, size in enumerate(sizes)
    ]
    mixed = np.concatenate(parts)
    if shuffle:
        return mixed[permutation(len(mixed), seed, EPOCH, epoch)]
    return mixed[np.argsort(np.concatenate([(np.arange(q) + 0.5) / q for q in quota]), kind="stable")]


def quotas(sizes: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    """How many examples an epoch takes of each set: ``sum(sizes)`` apportioned by largest remainder.

    Raises:
        UserError: a set would get none, and so never be seen.
    """
    shares = [Fraction(1 if weight is None else weight) for weight in weights]
    exact = [sum(sizes) * share / sum(shares) for share in shares]
    quota = [int(e) for e in exact]
    by_remainder = sorted(range(len(quota)), key=lambda d: (quota[d] - exact[d], d))
    for d in by_remainder[: sum(sizes) - sum(quota)]:
        quota[d] += 1
    if 0 in quota:
        unseen = quota.index(0)
        message = f"data set number {unseen + 1} would never be seen: its weight is below one example in {sum(sizes)}"
        raise UserError(Problem(message, "raise it, or leave the set out", path=f"data.train.{unseen}.weight"))
    return quota


def _draws(size: int, start: int, stop: int, key: tuple[int, ...] | None) -> Int64:
    """Draws number ``start`` to ``stop`` of the endless sequence of permutations of ``range(size)``.

    Permutation ``k`` is keyed by ``(*key, k)``; without a key each is the identity.
    """
    if key is None:
        return np.arange(start, stop) % size
    first, last = start // size, -(-stop // size)
    rounds = np.concatenate([permutation(size, *key, k) for k in range(first, last)])
    return rounds[start - first * size : stop - first * size]
