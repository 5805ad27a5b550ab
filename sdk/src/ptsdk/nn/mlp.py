"""The gated feed-forward layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Activation = Callable[[Tensor], Tensor]


class GatedMLP(nn.Module):
    """``down(activation(gate(x)) * up(x))``, "GLU variants improve transformers" (arXiv:2002.05202).

    Args:
        width: D, of the hidden states.
        hidden: F, between the projections.
        activation: elementwise, e.g. ``torch.nn.functional.silu``; computed again in the backward.
        bias: whether the projections have one.
    """

    def __init__(self, width: int, hidden: int, activation: Activation, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=bias)
        self.up_proj = nn.Linear(width, hidden, bias=bias)
        self.down_proj = nn.Linear(hidden, width, bias=bias)
        self.activation = activation

    def forward(self, x_ND: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        hidden: Tensor = self.down_proj(gated(self.gate_proj(x_ND), self.up_proj(x_ND), self.activation))
        return hidden


def gated(gate_NF: Tensor, up_NF: Tensor, activation: Activation) -> Tensor:
    """``activation(gate) * up`` [N, F], of which only ``gate`` and ``up`` wait for the backward."""
    if torch.compiler.is_compiling():  # a compiler sees by itself what is cheap to make again
        return activation(gate_NF) * up_NF
    function: Any = _Gated  # torch's ``apply`` has no types
    product: Tensor = function.apply(gate_NF, up_NF, activation)
    return product


class _Gated(torch.autograd.Function):
    """One product of [N, F] less in memory than autograd keeps; the bits are the same."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return activation(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        gate = gate.detach().requires_grad_()
        with torch.enable_grad():
            active = ctx.activation(gate)
        (grad_gate,) = torch.autograd.grad(active, gate, grad * up)
        return grad_gate, grad * active.detach(), None
