"""Root-mean-square normalisation (arXiv:1910.07467)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from ptsdk.nn.recompute import recomputed


def normalise(x: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps)`` over the last dimension, in at least float32.

    Args:
        x: [..., D], any floating dtype.
        eps: added to the mean of squares.

    Returns:
        [..., D]; float32, or float64 for float64 input.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return rms_norm(wide, (x.shape[-1],), None, eps)


class RMSNorm(nn.Module):
    """``weight * normalise(x)``; the product is in the dtype of ``x``, as transformers has it."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D], same dtype."""
        return recomputed(self._scaled, x, self.weight)

    def _scaled(self, x: Tensor, weight: Tensor) -> Tensor:
        return weight * normalise(x, self.eps).to(x.dtype)
