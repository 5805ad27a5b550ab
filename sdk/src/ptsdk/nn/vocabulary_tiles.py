"""The softmax of a projection to the vocabulary, some columns of it at a time.

What flash attention does with keys (arXiv:2205.14135, on the running maximum of arXiv:1805.02867), done with
the rows of the head's weight: a tile of logits is made, turned into exponentials, multiplied into what the
hidden states get, and overwritten by the next tile, all while it is in the cache.

m rows of hidden states of width D, vocabulary V, v columns in a tile.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ptsdk.nn.head import Head, logits_of

TILE = 4096
"""Columns at a time: with some hundred rows, what the cache of a core holds."""


def tiles(vocabulary: int) -> Iterator[slice]:
    """The columns of each tile."""
    return (slice(start, min(start + TILE, vocabulary)) for start in range(0, vocabulary, TILE))


class Sweep:
    """One pass over the vocabulary: log-probabilities of labels, and the gradient of their negative sum.

    Args:
        hidden: [m, D].
        head: the projection.
        labels: int64 [m].
        wants_gradient: whether ``gradient`` will be asked for.

    Attributes:
        log_probs: [m], in at least float32.
    """

    def __init__(self, hidden: Tensor, head: Head, labels: Tensor, wants_gradient: bool) -> None:
        self._hidden, self._head, self._labels = hidden, head, labels
        wide = torch.promote_types(hidden.dtype, torch.float32)
        self._top = hidden.new_full((len(labels),), float("-inf"), dtype=wide)
        self._total, self._label_logits = torch.zeros_like(self._top), torch.zeros_like(self._top)
        self._sums = torch.zeros_like(hidden, dtype=wide) if wants_gradient else None
        buffer = hidden.new_empty(len(labels), TILE, dtype=wide)
        for columns in tiles(len(head.weight)):
            self._take(columns, buffer[:, : columns.stop - columns.start])
        self.log_probs = self._label_logits - self._top - self._total.log()

    def _take(self, columns: slice, room: Tensor) -> None:
        """Bring the sums up to date with the next tile; ``room`` then holds exponentials, times the slope."""
        part = part_of(self._head, columns)
        logits = logits_of(self._hidden, part.weight, part.bias, part.softcap, room)
        slope = slopes(logits, part.softcap)
        label = LabelIn(self._labels, columns)
        self._label_logits = label.read(logits, self._label_logits)
        top = torch.maximum(self._top, logits.amax(1))
        shrunk = (self._top - top).exp_()
        logits.sub_(top[:, None]).exp_()
        self._total, self._top = self._total * shrunk + logits.sum(1), top
        if self._sums is None:
            return
        if slope is not None:
            logits.mul_(slope)
        label.write_(logits, torch.zeros_like(top))  # added at the end as one difference, which is exact near 0
        add_product_(self._sums.mul_(shrunk[:, None]), logits, part.weight)

    def gradient(self) -> Tensor:
        """Of the negative sum of ``log_probs`` by the hidden states: [m, D], in at least float32."""
        if self._sums is None:
            raise ValueError("the sweep was told that nobody wants its gradient")
        slope = slopes(self._label_logits, self._head.softcap)
        by_label = torch.expm1(self.log_probs) if slope is None else torch.expm1(self.log_probs).mul_(slope)
        return self._sums.div_(self._total[:, None]).addcmul_(self._head.weight[self._labels], by_label[:, None])


class LabelIn:
    """Where the labels [m] of some rows are among ``columns``, if they are."""

    def __init__(self, labels: Tensor, columns: slice) -> None:
        self._inside = (labels >= columns.start) & (labels < columns.stop)
        self._at = (labels - columns.start).clamp_(0, columns.stop - columns.start - 1)[:, None]

    def read(self, tile: Tensor, otherwise: Tensor) -> Tensor:
        """The elements [m] of ``tile`` [m, v] at the labels; those of ``otherwise`` [m] where a label is not there."""
        return torch.where(self._inside, tile.gather(1, self._at).squeeze(1), otherwise)

    def write_(self, tile: Tensor, values: Tensor) -> None:
        """Put ``values`` [m] at the labels that are there."""
        kept = tile.gather(1, self._at).squeeze(1)
        tile.scatter_(1, self._at, torch.where(self._inside, values, kept)[:, None])


def part_of(head: Head, columns: slice) -> Head:
    """The projection to some columns of the vocabulary."""
    return Head(head.weight[columns], None if head.bias is None else head.bias[columns], head.softcap)


def slopes(logits: Tensor, softcap: float | None) -> Tensor | None:
    """What capped logits move by when those before capping do; None for 1."""
    return None if softcap is None else 1 - (logits / softcap).square_()


def add_product_(sums: Tensor, left: Tensor, right: Tensor) -> None:
    """``sums += left @ right`` in the dtype of ``right``, summed in that of ``sums``."""
    if left.dtype == right.dtype:
        sums.addmm_(left, right)
    else:
        sums.add_(torch.mm(left.to(right.dtype), right))
