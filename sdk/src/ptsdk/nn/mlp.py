"""The gated feed-forward layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


class GatedMLP(nn.Module):
    """``down(activation(gate(x)) * up(x))``, "GLU variants improve transformers" (arXiv:2002.05202).

    Args:
        width: D, of the hidden states.
        hidden: F, between the projections.
        activation: elementwise, e.g. ``torch.nn.functional.silu``.
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
        hidden: Tensor = self.down_proj(self.activation(self.gate_proj(x_ND)) * self.up_proj(x_ND))
        return hidden
