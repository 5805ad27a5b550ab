"""Supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ptsdk.contracts.loss import Loss, LossOutput, TokenLoss
from ptsdk.contracts.method import Method
from ptsdk.data.example import Example
from ptsdk.nn.batch import Batch

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run


class SFT(Method):
    """Minimise a token loss on the supervised tokens of the data."""

    loss_type: ClassVar[type[Loss]] = TokenLoss

    def collate(self, run: Run, examples: Sequence[Example]) -> Batch:
        """Every document of every example, end to end."""
        documents = [document for example in examples for document in example.documents]
        return Batch.pack([d.tokens for d in documents], [d.supervised for d in documents])

    def loss(self, run: Run, batch: Batch) -> LossOutput:
        """The job's loss on the model's hidden states."""
        loss = run.job.loss
        assert isinstance(loss, TokenLoss)  # the job has matched it with loss_type
        return loss(run.model(batch), run.model.head(), batch.labels)
