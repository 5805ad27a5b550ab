"""The loss that every other trainer began with: all logits at once. For comparison alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ptsdk.contracts.loss import LossOutput, TokenLoss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head


class Whole(TokenLoss):
    """Cross-entropy through a [N, V] tensor."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        """[N, D], head, [N] -> the sum over supervised tokens; the weight is their number."""
        logits = head.logits(hidden_states).float()
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
        return LossOutput(loss, (labels != IGNORE).sum())
