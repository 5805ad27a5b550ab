"""The order of examples: which of them each optimizer step reads, on each process.

Everything is a pure function of the seed and the epoch. The world size only decides who reads
which part of a step, so one cursor, counted over all processes, resumes a run on any of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptsdk.data.mixing import PACKS, epoch_examples, permutation, quotas
from ptsdk.data.packing import pack
from ptsdk.errors import Problem, UserError

if TYPE_CHECKING:
    from ptsdk.contracts.run import Progress

Int64 = NDArray[np.int64]
MOST_PASSES = 1000
"""Passes over the data that one step may take."""
Share = list[list[int]]
"""The micro-batches of one process in one step, each a list of example indices."""


class Epoch:
    """The items of one epoch in order; an item is one sequence of a batch.

    Args:
        examples: int64, the example indices of all items, item after item.
        bounds: int64 [items + 1]; item ``j`` is ``examples[bounds[j]:bounds[j + 1]]``.
    """

    def __init__(self, examples: Int64, bounds: Int64) -> None:
        self.examples, self.bounds = examples, bounds

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def items(self, start: int, stop: int) -> list[tuple[int, ...]]:
        """The items number ``start`` to ``stop``."""
        bounds = self.bounds[start : stop + 1].tolist()
        return [tuple(self.examples[a:b].tolist()) for a, b in pairwise(bounds)]


class SamplePlan:
    """Which examples each optimizer step reads on this process.

    Args:
        lengths: int64 [n], tokens of each example.
        sizes: examples of each data set, summing to n.
        weights: of each data set, see ``data.mixing``.
        seed: of the order.
        shuffle: False keeps the order of the files.
        packing: whether an item is as many whole examples as fit into ``capacity``, else one example.
        capacity: tokens of a pack.
        batch_size: items an optimizer step reads, over all processes.
        micro_batch_size: items a process takes through the model at once.
        rank: of this process.
        world_size: how many processes there are.
        steps: length of the run in optimizer steps, or
        epochs: in passes over the data; the last batch is then as long as what is left.

    Raises:
        ValueError: no examples, neither or both of ``steps`` and ``epochs``, or an example that is
            longer than a pack.
        UserError: weights under which a data set is never seen; a batch of more than ``MOST_PASSES``
            passes over the data.
    """

    def __init__(
        self,
        *,
        lengths: NDArray[np.integer],
        sizes: Sequence[int],
        weights: Sequence[float | None],
        seed: int,
        shuffle: bool,
        packing: bool,
        capacity: int,
        batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        steps: int | None = None,
        epochs: float | None = None,
    ) -> None:
        if not sizes or min(sizes) < 1 or sum(sizes) != len(lengths):
            raise ValueError(f"{len(lengths)} lengths do not make data sets of {list(sizes)} examples")
        if (steps is None) == (epochs is None):
            raise ValueError("a plan is as long as either steps or epochs say")
        self.weighted = any(weight is not None for weight in weights)
        if self.weighted:
            quotas(sizes, weights)  # refuses weights that never reach a set
        self.lengths, self.sizes, self.weights = lengths, tuple(sizes), tuple(weights)
        self.seed, self.shuffle, self.packing, self.capacity = seed, shuffle, packing, capacity
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.rank, self.world_size = rank, world_size
        self._latest: tuple[int, Epoch] | None = None
        self._refuse_endless_steps()
        self._counts: dict[int, int] = {}
        self._end: tuple[float, int] = (math.inf, 0) if epochs is None else self._cursor_after(epochs)
        self.total_steps = steps if steps is not None else -(-self._items_before(*self._end) // batch_size)
        """Optimizer steps of the whole run."""

    def _refuse_endless_steps(self) -> None:
        """A step reads its items before it trains: with a mistyped batch size it would read for ever."""
        passes = self.batch_size / len(self.lengths)
        if passes > MOST_PASSES:
            raise UserError(
                Problem(
                    f"a step of {self.batch_size} sequences would read all {len(self.lengths)} examples "
                    f"{passes:.0f} times; {MOST_PASSES} is the most",
                    "lower it; beyond the number of examples a larger batch only repeats them",
                    path="train.batch_size",
                )
            )

    def items(self, epoch: int) -> list[tuple[int, ...]]:
        """Every item of an epoch: one example index, or those of a pack."""
        made = self.epoch(epoch)
        return made.items(0, len(made))

    def epoch(self, number: int) -> Epoch:
        """The items of an epoch, kept until another one is asked for."""
        if self._latest is None or self._latest[0] != number:
            self._latest = (number, self._make(number))
        return self._latest[1]

    def steps(self, progress: Progress) -> Iterator[Share]:
        """From the cursor on: for each step, this process's micro-batches.

        A step's items are cut into contiguous shares, one a process, and shares into micro-batches.
        Every process gets equally many; those it has no items for are empty lists.

        The cursor moves when a step is handed out, so that while the step runs, and when it ends in
        a checkpoint, ``progress`` already says where the next one begins.

        Ends where ``epochs`` do; a run of so many ``steps`` goes on for as long as it is asked.
        """
        while items := self.take(progress):
            yield share(items, self.micro_batch_size, self.rank, self.world_size)

    def take(self, progress: Progress) -> list[tuple[int, ...]]:
        """The items of the next step over all processes, reaching into further epochs where one ends;
        empty at the end. Moves the cursor past them."""
        batch: list[tuple[int, ...]] = []
        while len(batch) < self.batch_size and (progress.epoch, progress.offset) < self._end:
            epoch = self.epoch(progress.epoch)
            end = len(epoch) if progress.epoch < self._end[0] else self._end[1]
            stop = min(progress.offset + self.batch_size - len(batch), end)
            batch += epoch.items(progress.offset, stop)
            progress.offset = stop
            if stop == len(epoch):
                progress.epoch, progress.offset = progress.epoch + 1, 0
        return batch

    def largest_micro_batches(self, steps: int) -> Share:
        """The examples of the first micro-batch of a step with most tokens, and, where steps accumulate, of
        the largest later one: on any process, in the first epoch or the first ``steps`` if they are fewer."""
        items = self.items(0)[: steps * self.batch_size]
        batches = [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
        shares = [share(b, self.micro_batch_size, r, self.world_size) for b in batches for r in range(self.world_size)]
        groups = ([s[0] for s in shares], [micro_batch for s in shares for micro_batch in s[1:]])
        return [max(group, key=lambda examples: int(self.lengths[examples].sum())) for group in groups if group]

    def epochs_done(self, progress: Progress) -> float:
        """The cursor in epochs, for people: 1.5 is half way through the second."""
        return progress.epoch + progress.offset / self._size(progress.epoch)

    def continues(self, progress: Progress) -> bool:
        """Whether this plan, from its start, comes by the cursor. A plan of fewer ``epochs`` may have
        ended with a batch that was cut short, where a longer one goes on reading."""
        whole = self._items_before(progress.epoch, progress.offset) % self.batch_size == 0
        return whole or (progress.epoch, progress.offset) == self._end

    def _make(self, number: int) -> Epoch:
        examples = epoch_examples(self.sizes, self.weights, self.seed, number, self.shuffle)
        if not self.packing:
            return Epoch(examples, np.arange(len(examples) + 1))
        # Equal lengths are packed in the order they come in, so that each epoch packs other neighbours.
        order, bounds = pack(self.lengths[examples], self.capacity)
        if self.shuffle:
            ranks = permutation(len(bounds) - 1, self.seed, PACKS, number)
        else:
            ranks = np.argsort(np.argsort(np.minimum.reduceat(order, bounds[:-1])))
        packs = np.repeat(ranks, np.diff(bounds))
        order = order[np.lexsort((order, packs))]
        return Epoch(examples[order], np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(packs))]))

    def _size(self, epoch: int) -> int:
        """Items of an epoch. Packs are counted once where every epoch packs the same lengths."""
        if not self.packing:
            return len(self.lengths)
        key = epoch if self.weighted else 0
        if key not in self._counts:
            self._counts[key] = len(self.epoch(key))
        return self._counts[key]

    def _cursor_after(self, epochs: float) -> tuple[int, int]:
        """The cursor at the end of so many epochs; of a part of one, its items are rounded up."""
        whole, part = divmod(Fraction(str(epochs)), 1)
        items = math.ceil(part * self._size(whole)) if part else 0
        return (whole + 1, 0) if part and items == self._size(whole) else (whole, items)

    def _items_before(self, epoch: float, offset: int) -> int:
        if not (self.packing and self.weighted):
            return int(epoch) * self._size(0) + offset
        return sum(self._size(e) for e in range(int(epoch))) + offset


def share(items: Sequence[tuple[int, ...]], micro_batch_size: int, rank: int, world_size: int) -> Share:
    """The micro-batches of process ``rank``: a contiguous slice of ``items``, cut into pieces.

    Every process gets as many as the one with the most items needs; those beyond its own items are
    empty lists. A micro-batch is the flat list of the examples of its items.
    """
    start, stop = (r * len(items) // world_size for r in (rank, rank + 1))
    mine = items[start:stop]
    largest = -(-len(items) // world_size)
    return [
        [example for item in mine[i : i + micro_batch_size] for example in item]
        for i in range(0, largest, micro_batch_size)
    ]


def validation_batches(examples: int, micro_batch_size: int, rank: int, world_size: int) -> Share:
    """Each of so many examples once, over all processes; see ``share``."""
    return share([(i,) for i in range(examples)], micro_batch_size, rank, world_size)
