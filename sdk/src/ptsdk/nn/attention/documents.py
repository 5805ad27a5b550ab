"""The backend that is always there: ``scaled_dot_product_attention``, once a document."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from ptsdk.nn.attention.bands import bands
from ptsdk.nn.attention.cpu import documents_attention


@dataclass(frozen=True, eq=False)
class Documents:
    """Every document attends to itself alone: an ``Attend``.

    No FLOP is spent on padding or across documents, and a sliding window costs its width. On a CPU it is
    one operator, elsewhere a call a document, around which a compiled block is in parts.
    """

    seq_lens: tuple[int, ...]
    bounds: Tensor = field(init=False)
    """int64 [B + 1] on the CPU. A compiled block takes its length as it comes; a tuple would be another
    program for each number of documents."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", torch.tensor([0, *accumulate(self.seq_lens)]))

    @classmethod
    def of(cls, seq_lens: tuple[int, ...], device: torch.device) -> Documents:
        """Of the documents of a batch; a ``Backend``."""
        return cls(seq_lens)

    def __call__(
        self, layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """See ``Attend``."""
        mixed: Tensor
        if q_NHE.device.type == "cpu":
            mixed, _ = documents_attention(q_NHE, k_NKE, v_NKE, self.bounds, scale, window)
        else:
            mixed = one_by_one(q_NHE, k_NKE, v_NKE, self.bounds, scale, window)
        return mixed


@torch._disable_dynamo  # type: ignore[attr-defined]  # as torch.compiler.disable, imported on use
def one_by_one(q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, bounds: Tensor, scale: float, window: int | None) -> Tensor:
    """What ``documents_attention`` mixes, on any device. In a graph it would be another one for each number of
    documents."""
    queries, keys, values = (t.transpose(0, 1)[None] for t in (q_NHE, k_NKE, v_NKE))  # [1, heads, N, E]
    grouped = q_NHE.shape[1] != k_NKE.shape[1]
    mixed = [
        sdpa(
            queries[:, :, band.queries],
            keys[:, :, band.keys],
            values[:, :, band.keys],
            attn_mask=band.mask,
            is_causal=band.mask is None,
            scale=scale,
            enable_gqa=grouped,
        )
        for band in bands(bounds, q_NHE, window)
    ]
    return torch.cat(mixed, dim=2)[0].transpose(0, 1)
