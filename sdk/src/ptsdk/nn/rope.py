"""Rotary position embedding (arXiv:2104.09864) in Hugging Face's half-rotation layout.

Everything is a function of plain numbers: no buffers, so a model built on the meta device has
nothing to restore. N tokens, H heads, E head size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Rope(NamedTuple):
    """The rotation of each token: ``cos`` and ``sin`` [N, 1, E], to be broadcast over heads; narrower where
    the rest of a head is not turned."""

    cos: Tensor
    sin: Tensor


def inverse_frequencies(head_dim: int, theta: float, device: torch.device | None = None) -> Tensor:
    """``theta^(-2i / E)`` for i in 0..E/2-1, in radians a token; float32 [E / 2]."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    return 1.0 / theta**exponents


def linear_scaled(inv_freq: Tensor, factor: float) -> Tensor:
    """Position interpolation (arXiv:2306.15595): every position counts ``1 / factor``."""
    return inv_freq / factor


def llama3_scaled(inv_freq: Tensor, factor: float, low: float, high: float, original_length: int) -> Tensor:
    """The scaling of Llama 3.1 (arXiv:2407.21783, as in its reference code).

    Wavelengths above ``original_length / low`` tokens are stretched by ``factor``, those below
    ``original_length / high`` are kept, and between the two the frequency is blended.
    """
    turns = original_length * inv_freq / (2 * math.pi)  # rotations within the original context
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * inv_freq / factor + kept * inv_freq


def rotations(positions: Tensor, inv_freq: Tensor, dtype: torch.dtype, scale: float = 1.0) -> Rope:
    """The rotation of each of ``positions`` [N] by ``inv_freq`` [E / 2], or [N, E / 2] where tokens differ; angles in
    float32, handed out in ``dtype``. What is turned becomes ``scale`` times as long."""
    angles = positions[:, None].float() * inv_freq
    angles = torch.cat((angles, angles), dim=-1)[:, None, :]  # [N, 1, E]
    return Rope((angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype))


def rotate(x_NHE: Tensor, rope: Rope) -> Tensor:
    """Turn each pair (i, i + R/2) of the first R numbers of every head, as many as ``rope`` has, by its token's angle;
    [N, H, E] -> [N, H, E]."""
    width = rope.cos.shape[-1]
    turned, rest = x_NHE[..., :width], x_NHE[..., width:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * rope.cos + torch.cat((-second, first), dim=-1) * rope.sin
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned
