"""The seam itself: what a block calls, and what makes that for a batch."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


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


class Backend(Protocol):
    """Makes the ``Attend`` of a batch, in which each document attends to itself alone."""

    def __call__(self, seq_lens: tuple[int, ...], device: torch.device) -> Attend:
        """
        Args:
            seq_lens: tokens of each document.
            device: of queries, keys and values.
        """
        ...
