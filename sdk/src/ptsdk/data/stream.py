"""Data that is larger than memory: rows become examples when a step reads them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ptsdk.data.example import Example, Examples, Row
from ptsdk.data.pipeline import Encoded, Rules, check_vocabulary, encode_rows, unusable
from ptsdk.data.report import Tally
from ptsdk.errors import UserError

if TYPE_CHECKING:
    from ptsdk.contracts.dataset import Dataset
    from ptsdk.data.tokenizer import Tokenizer

BLOCKS = 2
"""Blocks of examples that are kept: a step may begin in one and end in the next."""


class Stream(Examples):
    """The rows of some data sets as examples, one set after the other, made when they are loaded.

    A row that is left out by the rules is no example; in its place stands the first row that is one, which is all
    that a filler needs.

    Args:
        datasets: they give their rows by number.
        rows: of each.
        tokenizer: of the run.
        rules: what becomes of rows that do not fit.

    Raises:
        UserError: no row can be used, or one that comes before those that can forbids the use of the data.
    """

    def __init__(
        self, datasets: Sequence[Dataset], rows: Sequence[Sequence[Row]], tokenizer: Tokenizer, rules: Rules
    ) -> None:
        self._datasets, self._rows, self._tokenizer, self._rules = datasets, rows, tokenizer, rules
        self.sizes = tuple(map(len, rows))
        self._starts = np.cumsum([0, *self.sizes])
        self.vocab_size: int | None = None
        """How many ids the model has, once it is known."""
        self.tally = Tally()
        """What became of the rows that were met, each counted once."""
        self._met = np.zeros(len(self), np.bool_)
        self._blocks: tuple[dict[int, Example], ...] = ()
        firsts = [self._first(d) for d in range(len(datasets))]
        self._first_example = firsts[0]

    def _first(self, number: int) -> Example:
        """The first example of a data set."""
        tally = Tally()
        for row in range(*self._starts[number : number + 2].tolist()):
            encoded = self._encode(row)
            if len(encoded.store):
                return encoded.store[0]
            tally.merge(encoded.tally)
        raise UserError(unusable(self._datasets[number], tally))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def item(self, index: int) -> Example:
        """See ``ByNumber``."""
        for block in self._blocks:
            if index in block:
                return block[index]
        store = self._encode(index).store
        return store[0] if len(store) else self._first_example

    def place(self, index: int) -> str:
        """Where a row came from: ``file:line``."""
        return self._row(index)[1].place

    def load(self, indices: Sequence[int]) -> list[int]:
        """Make examples of some rows and keep them until two other lots were loaded; those rows that are examples,
        as often as they are named.

        Raises:
            UserError: a row forbids the use of the data, or has an id that the model has no embedding for.
        """
        block: dict[int, Example] = {}
        for index in dict.fromkeys(indices):
            encoded = self._encode(index)
            if not self._met[index]:
                self._met[index] = True
                self._count(encoded.tally)
            if len(encoded.store):
                block[index] = encoded.store[0]
        self._blocks = (*self._blocks, block)[-BLOCKS:]  # others may be reading those that were there
        return [index for index in indices if index in block]

    def length(self, index: int) -> int:
        """Tokens of a row that was loaded."""
        return self[index].length

    def _encode(self, index: int) -> Encoded:
        dataset, row = self._row(index)
        encoded = encode_rows(dataset, [row], self._tokenizer, self._rules)
        if encoded.problems:
            raise UserError(*encoded.problems)
        if self.vocab_size is not None:
            check_vocabulary(encoded.store, self.vocab_size)
        return encoded

    def _row(self, index: int) -> tuple[Dataset, Row]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._datasets[number], self._rows[number][index - int(self._starts[number])]

    def _count(self, tally: Tally) -> None:
        """Add one row; the first that is left out for a reason is told at once."""
        for reason, count in tally.dropped.items():
            if reason not in self.tally.dropped:
                print(f"ptsdk: left out: {count.places[0]} ({reason}); others are counted", file=sys.stderr)
        self.tally.merge(tally)

    def told(self) -> str:
        """How many of the rows that were met were left out, and why; empty for none."""
        reasons = [f"{count.count} {reason} (first {count.places[0]})" for reason, count in self.tally.dropped.items()]
        return f"of {self.tally.rows} rows that were read, left out: {'; '.join(reasons)}" if reasons else ""
