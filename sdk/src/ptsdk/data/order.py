"""The order of examples: which of them each optimizer step reads, on each process.

Everything is a pure function of the seed and the epoch. The world size only decides who reads
which part of a step, so one cursor, counted over all processes, resumes a run on any of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptsdk.data.mixing import PACKS, epoch_examples, permutation, quotas
from ptsdk.data.packing import best_fit_decreasing, pack
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

    def read(self, offset: int, count: int) -> tuple[list[tuple[int, ...]], int]:
        """The next ``count`` items, or all that are left, and the offset after them."""
        stop = min(offset + count, len(self))
        return self.items(offset, stop), stop


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
        cut: what of them a process takes through the model at once.
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
        cut: Cut,
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
        self.batch_size, self.cut = batch_size, cut
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
        latest = self._latest  # a step is read while another is reported
        if latest is None or latest[0] != number:
            latest = self._latest = (number, self._make(number))
        return latest[1]

    def steps(self, progress: Progress) -> Iterator[Share]:
        """From the cursor on: for each step, this process's micro-batches.

        A step's items are cut into contiguous shares, one a process, and shares into micro-batches:
        see ``Cut.shares``.

        The cursor moves when a step is handed out, so that while the step runs, and when it ends in
        a checkpoint, ``progress`` already says where the next one begins.

        Ends where ``epochs`` do; a run of so many ``steps`` goes on for as long as it is asked.
        """
        while items := self.take(progress):
            yield self._shares(items)[self.rank]

    def take(self, progress: Progress) -> list[tuple[int, ...]]:
        """The items of the next step over all processes, reaching into further epochs where one ends;
        empty at the end. Moves the cursor past them."""
        batch: list[tuple[int, ...]] = []
        while len(batch) < self.batch_size and (progress.epoch, progress.offset) < self._end:
            epoch = self.epoch(progress.epoch)
            end = len(epoch) if progress.epoch < self._end[0] else self._end[1]
            wanted = min(self.batch_size - len(batch), end - progress.offset)
            items, progress.offset = epoch.read(progress.offset, wanted)
            batch += items
            if progress.offset == len(epoch):
                progress.epoch, progress.offset = progress.epoch + 1, 0
        return batch

    def largest_micro_batches(self, steps: int) -> Share:
        """The examples of the first micro-batch of a step with most tokens, and, where steps accumulate, of
        the largest later one: on any process, in the first epoch or the first ``steps`` if they are fewer."""
        items = self.items(0)[: steps * self.batch_size]
        batches = [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
        shares = [share for batch in batches for share in self._shares(batch)]
        groups = ([s[0] for s in shares], [micro_batch for s in shares for micro_batch in s[1:]])
        return [max(group, key=lambda examples: int(self.lengths[examples].sum())) for group in groups if group]

    def _shares(self, items: Sequence[tuple[int, ...]]) -> list[Share]:
        """The micro-batches of every process."""
        lengths = [self._tokens(item) for item in items] if self.cut.tokens else ()
        return self.cut.shares(items, lengths, self.world_size)

    def _tokens(self, item: tuple[int, ...]) -> int:
        return int(self.lengths[list(item)].sum())

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
        return packed(examples, self.lengths[examples], self.capacity, (self.seed, PACKS, number) * self.shuffle)

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


def packed(examples: Int64, lengths: NDArray[np.integer], capacity: int, key: Sequence[int]) -> Epoch:
    """Examples as packs, each with its examples in their order.

    Args:
        examples: int64 [n], indices in the order they are met.
        lengths: tokens of each.
        capacity: tokens of a pack.
        key: decides the order of the packs; without one it is that of their first examples.
    """
    order, bounds = pack(lengths, capacity)
    if key:
        ranks = permutation(len(bounds) - 1, *key)
    else:
        ranks = np.argsort(np.argsort(np.minimum.reduceat(order, bounds[:-1])))
    packs = np.repeat(ranks, np.diff(bounds))
    order = order[np.lexsort((order, packs))]
    return Epoch(examples[order], np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(packs))]))


@dataclass(frozen=True)
class Cut:
    """How what a process reads in a step is cut into micro-batches: by items, or by tokens.

    Attributes:
        size: items of a micro-batch.
        tokens: or what the tokens of its items add up to at most; an item that is longer is one by itself.
    """

    size: int | None = None
    tokens: int | None = None

    def shares(
        self, items: Sequence[tuple[int, ...]], lengths: Sequence[int], world_size: int, *, in_order: bool = False
    ) -> list[Share]:
        """What each process reads: a contiguous slice of ``items``, cut into pieces.

        Every process gets as many as the one that needs most; those beyond its own items are empty lists. A
        micro-batch is the flat list of the examples of its items.

        Args:
            items: of a step, each the examples of one sequence.
            lengths: tokens of each item.
            world_size: how many processes there are.
            in_order: keep the order of the items when they are cut by tokens; else they are put where they fill
                a micro-batch best, so that there are fewer.
        """
        if self.size is not None:
            return [share(items, self.size, rank, world_size) for rank in range(world_size)]
        assert self.tokens is not None
        within = runs if in_order else filled
        shares = [
            [
                [example for j in piece for example in items[start + j]]
                for piece in within(lengths[start:stop], self.tokens)
            ]
            for start, stop in (span(len(items), rank, world_size) for rank in range(world_size))
        ]
        most = max(map(len, shares))
        return [own + [[] for _ in range(most - len(own))] for own in shares]


def filled(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices into ``lengths`` in as few pieces of at most so many tokens as best fit finds, the longest first."""
    if not len(lengths):
        return []
    bins = best_fit_decreasing(np.clip(np.asarray(lengths), 1, tokens), tokens)
    return [piece.tolist() for piece in bins]


def runs(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The same with pieces of neighbours."""
    pieces: list[list[int]] = []
    left = 0
    for i, length in enumerate(lengths):
        if not pieces or length > left:
            pieces.append([])
            left = tokens
        pieces[-1].append(i)
        left -= length
    return pieces


def span(items: int, rank: int, world_size: int) -> tuple[int, int]:
    """The slice of so many items that a process reads."""
    return rank * items // world_size, (rank + 1) * items // world_size


def share(items: Sequence[tuple[int, ...]], micro_batch_size: int, rank: int, world_size: int) -> Share:
    """The micro-batches of process ``rank``, of so many items each; see ``Cut.shares``."""
    start, stop = span(len(items), rank, world_size)
    mine = items[start:stop]
    largest = -(-len(items) // world_size)
    return [
        [example for item in mine[i : i + micro_batch_size] for example in item]
        for i in range(0, largest, micro_batch_size)
    ]


def validation_batches(lengths: Sequence[int], cut: Cut, rank: int, world_size: int) -> Share:
    """Each of the examples of these lengths once, over all processes; see ``Cut.shares``."""
    return cut.shares([(i,) for i in range(len(lengths))], lengths, world_size, in_order=True)[rank]
