"""The softmax of a projection to the vocabulary, some columns of it at a time.

What flash attention does with keys (arXiv:2205.14135, on the running maximum of arXiv:1805.02867), done with
the rows of the head's weight: a tile of logits is made, turned into exponentials, multiplied into what the
hidden states get, and overwritten by the next tile, all while it is in the cache.

m rows of hidden states of width D, vocabulary V, v columns in a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ptsdk.nn.elementwise import exponentials_, label_gradients, program
from ptsdk.nn.head import Head, products

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
        buffer = hidden.new_empty(len(labels), min(TILE, len(head.weight)), dtype=wide)
        exponentials = program(exponentials_, head)
        for columns in tiles(len(head.weight)):
            self._take(columns, buffer, exponentials)
        self.log_probs = self._label_logits - self._top - self._total.log()

    def _take(self, columns: slice, buffer: Tensor, exponentials: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> None:
        """Bring the sums up to date with the next tile, made in ``buffer``."""
        part, label = part_of(self._head, columns), LabelIn(self._labels, columns)
        tile = products(self._hidden, part.weight, buffer)
        top, total, picked = exponentials(tile, part.bias, part.softcap, label.at, self._top)
        shrunk = (self._top - top).exp_()
        self._label_logits = torch.where(label.inside, picked, self._label_logits)
        self._total, self._top = self._total * shrunk + total, top
        if self._sums is not None:
            label.clear_(tile)  # the label's share is added at the end as one difference, which is exact near 0
            add_product_(self._sums.mul_(shrunk[:, None]), tile, part.weight)

    def gradient(self) -> Tensor:
        """Of the negative sum of ``log_probs`` by the hidden states: [m, D], in at least float32."""
        if self._sums is None:
            raise ValueError("the sweep was told that nobody wants its gradient")
        by_label = label_gradients(self.log_probs, self._label_logits, self._head.softcap)
        return self._sums.div_(self._total[:, None]).addcmul_(self._head.weight[self._labels], by_label[:, None])


class LabelIn:
    """Where the labels [m] of some rows are among ``columns``, if they are.

    Attributes:
        inside: bool [m].
        at: int64 [m], counted from the first of the columns; any column for a label that is not there.
    """

    def __init__(self, labels: Tensor, columns: slice) -> None:
        self.inside = (labels >= columns.start) & (labels < columns.stop)
        self.at = (labels - columns.start).clamp_(0, columns.stop - columns.start - 1)

    def clear_(self, tile: Tensor) -> None:
        """Put 0 at the labels that are there."""
        at = self.at[:, None]
        tile.scatter_(1, at, tile.gather(1, at).masked_fill_(self.inside[:, None], 0))


def part_of(head: Head, columns: slice) -> Head:
    """The projection to some columns of the vocabulary."""
    bias = None if head.bias is None else head.bias[columns]
    return replace(head, weight=head.weight[columns], bias=bias)


def add_product_(sums: Tensor, left: Tensor, right: Tensor) -> None:
    """``sums += left @ right`` in the dtype of ``right``, summed in that of ``sums``."""
    if left.dtype == right.dtype:
        sums.addmm_(left, right)
    else:
        sums.add_(torch.mm(left.to(right.dtype), right))
