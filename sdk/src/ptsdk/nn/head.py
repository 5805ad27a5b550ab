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
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None

    def logits(self, hidden_states: Tensor) -> Tensor:
        """[N, D] -> [N, V]. Only for few rows: sampling, and the reference path of tests."""
        logits = torch.nn.functional.linear(hidden_states, self.weight, self.bias)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def logits_of(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None, out: Tensor | None = None
) -> Tensor:
    """[m, D] -> [m, V], capped, in at least float32; in the first m rows of ``out`` where that is given."""
    if out is None:
        out = hidden.new_empty(len(hidden), len(weight), dtype=torch.promote_types(hidden.dtype, torch.float32))
    logits = out[: len(hidden)]
    if hidden.dtype == logits.dtype:
        torch.mm(hidden, weight.T, out=logits)
    else:
        logits.copy_(torch.mm(hidden, weight.T))
    if bias is not None:
        logits.add_(bias)
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)
