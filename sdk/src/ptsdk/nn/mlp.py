"""The gated feed-forward layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ptsdk.nn.recompute import not_kept, recomputed

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
        with not_kept(x_ND):
            gate_NF, up_NF = self.gate_proj(x_ND), self.up_proj(x_ND)
        product_NF = gated(gate_NF, up_NF, self.activation)
        with not_kept(product_NF):
            hidden: Tensor = self.down_proj(product_NF)
        return hidden


def gated(gate_NF: Tensor, up_NF: Tensor, activation: Activation) -> Tensor:
    """``activation(gate) * up`` [N, F], of which only ``gate`` and ``up`` wait for the backward."""
    return recomputed(lambda gate, up: activation(gate) * up, gate_NF, up_NF)
