"""A loss, by way of the functions that an author of that time had."""

from pydantic import Field

from ptsdk.contracts.loss import LossOutput, TokenLoss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.linear_loss import linear_cross_entropy


class Doubled(TokenLoss):
    """``factor`` times the cross-entropy."""

    factor: float = Field(2.0, gt=0, description="what the cross-entropy is multiplied by")

    def __call__(self, hidden_states, head, labels):
        """[N, D], head, [N] -> the sum over supervised tokens."""
        return LossOutput(self.factor * linear_cross_entropy(hidden_states, head, labels), (labels != IGNORE).sum())
