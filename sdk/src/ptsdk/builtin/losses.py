"""Losses on supervised tokens."""

from __future__ import annotations

from torch import Tensor

from ptsdk.contracts.loss import LossOutput, TokenLoss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.nn.linear_loss import linear_cross_entropy


class CrossEntropy(TokenLoss):
    """Cross-entropy of the next token, in nats."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        """[N, D], head, [N] -> the sum over supervised tokens; the weight is their number."""
        return LossOutput(linear_cross_entropy(hidden_states, head, labels), (labels != IGNORE).sum())
