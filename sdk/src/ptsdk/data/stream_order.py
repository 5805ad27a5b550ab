"""The order of rows that become examples when a step reads them: that of ``order``, met in windows.

An offset counts rows, or packs inside a window: item ``j`` of window ``w`` is at ``w * WINDOW + j``, and the window
after it begins at ``(w + 1) * WINDOW``. So a cursor says where to go on without knowing what packs the windows
before made, and only its own window is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptsdk.data.mixing import PACKS, epoch_examples
from ptsdk.data.order import Epoch, SamplePlan, packed
from ptsdk.data.stream import Stream
from ptsdk.errors import UserError

if TYPE_CHECKING:
    from ptsdk.contracts.run import Progress

Int64 = NDArray[np.int64]
WINDOW = 1024
"""Rows that are packed together."""
LOOK = "`ptsdk data JOB` shows rows as the model sees them"


class Windows(Epoch):
    """An epoch of a stream.

    Args:
        stream: makes the examples.
        rows: int64 [n], in the order they are met.
        capacity: tokens of a pack; None where every row is an item.
        key: decides the order of the packs of a window, with its number; see ``packed``.
    """

    def __init__(self, stream: Stream, rows: Int64, capacity: int | None, key: Sequence[int]) -> None:
        self._stream, self._rows, self._capacity, self._key = stream, rows, capacity, key
        self._latest: tuple[int, list[tuple[int, ...]]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, offset: int, count: int) -> tuple[list[tuple[int, ...]], int]:
        """The next ``count`` items, or all that are left, and the offset after them. Rows that are left out make none.

        Raises:
            UserError: a row forbids the use of the data, or none of the epoch can be used.
        """
        items, begun = list[tuple[int, ...]](), offset
        while len(items) < count and offset < len(self):
            more, offset = self._some(offset, count - len(items))
            items += more
        if begun == 0 and offset == len(self) and not items:
            raise UserError(f"no row of an epoch can be used; {self._stream.told()}", hint=LOOK)
        return items, offset

    def _some(self, offset: int, count: int) -> tuple[list[tuple[int, ...]], int]:
        """At most ``count`` items, of so many rows or of one window."""
        if self._capacity is None:
            stop = min(offset + count, len(self))
            return [(row,) for row in self._stream.load(self._rows[offset:stop].tolist())], stop
        number, at = divmod(offset, WINDOW)
        packs = self._packs(number, self._capacity)
        part = packs[at : at + count]
        whole = at + len(part) == len(packs)
        return part, min((number + 1) * WINDOW, len(self)) if whole else offset + len(part)

    def items(self, start: int, stop: int) -> list[tuple[int, ...]]:
        """Those from offset ``start`` on, before offset ``stop``."""
        return self.read(start, stop - start)[0]

    def _packs(self, number: int, capacity: int) -> list[tuple[int, ...]]:
        """The packs of a window, kept until those of another are asked for."""
        if self._latest is None or self._latest[0] != number:
            rows = self._stream.load(self._rows[number * WINDOW : (number + 1) * WINDOW].tolist())
            self._latest = (number, self._packed(rows, number, capacity) if rows else [])
        return self._latest[1]

    def _packed(self, rows: list[int], number: int, capacity: int) -> list[tuple[int, ...]]:
        lengths = np.array([self._stream.length(row) for row in rows])
        made = packed(np.array(rows), lengths, capacity, (*self._key, number) if self._key else ())
        return made.items(0, len(made))


class StreamPlan(SamplePlan):
    """Which rows each step reads on this process. Every process makes examples of all rows of a step, and collates
    its own.

    The order is that of a ``SamplePlan`` of as many examples; rows that are left out are passed over. Packs are made
    of ``WINDOW`` rows, neighbours in the order. How many items an epoch has is not known beforehand, so a run is as
    long as ``steps`` say.

    Args:
        stream: the examples.
        options: as of ``SamplePlan``, without ``lengths``, ``sizes`` and ``epochs``.
    """

    def __init__(self, stream: Stream, **options: Any) -> None:
        self._stream = stream
        longest = np.broadcast_to(np.int64(options["capacity"]), len(stream))  # takes no memory
        super().__init__(lengths=longest, sizes=stream.sizes, **options)

    def continues(self, progress: Progress) -> bool:
        """Always: no batch of it is cut short."""
        return True

    def _make(self, number: int) -> Epoch:
        rows = epoch_examples(self.sizes, self.weights, self.seed, number, self.shuffle)
        key = (self.seed, PACKS, number) if self.shuffle else ()
        return Windows(self._stream, rows, self.capacity if self.packing else None, key)

    def _tokens(self, item: tuple[int, ...]) -> int:
        return sum(self._stream.length(row) for row in item)

    def _size(self, epoch: int) -> int:
        """Offsets of an epoch."""
        return len(self._stream)
