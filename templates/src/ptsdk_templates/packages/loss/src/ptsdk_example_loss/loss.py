"""The loss itself, imported when a job says ``loss: {use: example-loss, epsilon: 2}``."""

from __future__ import annotations

from ptsdk.contracts.loss import LossOutput, TokenLoss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.nn.linear_loss import linear_log_probs
from pydantic import Field
from torch import Tensor


class ExampleLoss(TokenLoss):
    """Poly-1 (arXiv:2204.12511): ``-log p + epsilon (1 - p)``, with ``p`` the probability of the label."""

    # A field is an option of the job; its description is what `ptsdk show loss example-loss` prints.
    epsilon: float = Field(1.0, ge=-1, description="weight of the second term; 0 is cross-entropy")

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        """[N, D], head, [N] -> the sum over supervised tokens; the weight is their number."""
        # Projects the supervised rows alone, a chunk at a time: a [N, V] tensor of logits never exists.
        log_probs = linear_log_probs(hidden_states, head, labels)
        losses = -log_probs + self.epsilon * (1 - log_probs.exp())
        # A sum and its weight, never a mean: the trainer divides once, by the weight of the whole step
        # over micro-batches and processes.
        return LossOutput(losses.sum(), (labels != IGNORE).sum())
