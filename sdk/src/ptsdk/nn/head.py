"""The projection to the vocabulary, as losses see it: a weight, never a [N, V] tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """``logits = softcap(hidden_states @ weight.T + bias)``.

    Attributes:
        weight: [V, D].
        bias: [V], or None.
        softcap: None, or c in ``c * tanh(logits / c)``.
        compiled: whether what is done to a block of logits is one program (``train.compile: {loss: true}``);
            losses see to it with ``ptsdk.nn.elementwise.program``.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    compiled: bool = False

    def logits(self, hidden_states: Tensor) -> Tensor:
        """[N, D] -> [N, V]. Only for few rows: sampling, and the reference path of tests."""
        logits = torch.nn.functional.linear(hidden_states, self.weight, self.bias)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def products(hidden: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """[m, D], [V, D] -> [m, V] in at least float32; in the first rows and columns of ``out`` where that is given."""
    rows, columns = len(hidden), len(weight)
    if out is None:
        out = hidden.new_empty(rows, columns, dtype=torch.promote_types(hidden.dtype, torch.float32))
    block = out if out.shape == (rows, columns) else out[:rows, :columns]  # a program tells views from the whole
    if hidden.dtype == block.dtype:
        return torch.mm(hidden, weight.T, out=block)
    return block.copy_(torch.mm(hidden, weight.T))


def capped_(products: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """Products [m, V] -> logits, in place."""
    if bias is not None:
        products.add_(bias)
    return products if softcap is None else products.div_(softcap).tanh_().mul_(softcap)


def logits_of(hidden: Tensor, head: Head, out: Tensor | None = None) -> Tensor:
    """[m, D] -> [m, V], capped, in at least float32; in ``out`` as above."""
    return capped_(products(hidden, head.weight, out), head.bias, head.softcap)
