"""The seam where queries meet keys. A block projects and rotates; an ``Attend`` does the rest.

Shapes: N tokens of B documents laid end to end, H query heads, K key/value heads, E head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa


class Attend(Protocol):
    """Causal attention of some queries to the keys they may see."""

    def __call__(
        self, layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """The mixed values [N, H, E].

        Args:
            layer: index of the block, for caches.
            q_NHE, k_NKE, v_NKE: rotated queries and keys, values.
            scale: what scores are multiplied by.
            window: how many tokens a query sees, itself included; None for all before it.
        """
        ...


@dataclass(frozen=True)
class Documents:
    """Every document attends to itself alone: scaled_dot_product_attention once a document.

    No FLOP is spent on padding or across documents, and a sliding window costs its width.
    """

    seq_lens: tuple[int, ...]

    def __call__(
        self, layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """See ``Attend``."""
        out = []
        for q, k, v in zip(*(torch.split(t, list(self.seq_lens)) for t in (q_NHE, k_NKE, v_NKE)), strict=True):
            q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))  # [1, heads, n, E]
            out.append(causal(q, k, v, scale, window).squeeze(0).transpose(0, 1))
        return torch.cat(out)


def causal(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """Causal attention of [1, H, n, E] to [1, K, n, E]; beyond ``window`` in bands of its width."""
    n = q.shape[2]
    grouped = q.shape[1] != k.shape[1]
    if window is None or n <= window:
        return sdpa(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
    bands = []
    for start in range(0, n, window):
        end, first = min(start + window, n), max(0, start - window + 1)
        mask = band_mask(start, end, first, window, q.device)
        bands.append(
            sdpa(
                q[:, :, start:end],
                k[:, :, first:end],
                v[:, :, first:end],
                attn_mask=mask,
                scale=scale,
                enable_gqa=grouped,
            )
        )
    return torch.cat(bands, dim=2)


def band_mask(start: int, end: int, first: int, window: int, device: torch.device) -> Tensor:
    """True where query ``start..end`` sees key ``first..end``: not later, not ``window`` earlier."""
    distance = torch.arange(start, end, device=device)[:, None] - torch.arange(first, end, device=device)
    return (distance >= 0) & (distance < window)
