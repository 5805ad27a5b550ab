"""The method itself, imported when a job says ``method: example-method``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from ptsdk.contracts.loss import Loss, LossOutput, TokenLoss
from ptsdk.contracts.method import Method
from ptsdk.data.example import Example
from ptsdk.nn.batch import Batch

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run


class ExampleMethod(Method):
    """Supervised fine-tuning where a document weighs 1, however many of its tokens carry loss.

    A method says how examples become a batch and what is asked of the model on it. Loop,
    accumulation, clipping, saving and logging are the trainer's.
    """

    loss_type: ClassVar[type[Loss]] = TokenLoss
    """What ``loss`` below calls: a job with a loss of another kind is refused by `ptsdk check`."""

    def collate(self, run: Run, examples: Sequence[Example]) -> Batch:
        """Documents end to end, without padding; none sees another."""
        documents = [document for example in examples for document in example.documents]
        return Batch.pack([d.tokens for d in documents], [d.supervised for d in documents])

    def loss(self, run: Run, batch: Batch) -> LossOutput:
        """The job's loss of each document, divided by that document's own weight."""
        loss = run.job.loss
        assert isinstance(loss, TokenLoss)  # the job has matched it with loss_type
        hidden_states, head = run.model(batch), run.model.head()
        lengths = list(batch.seq_lens)
        parts = zip(torch.split(hidden_states, lengths), torch.split(batch.labels, lengths), strict=True)
        each = [loss(hidden, head, labels) for hidden, labels in parts]
        sums, weights = torch.stack([one.sum for one in each]), torch.stack([one.weight for one in each])
        # The weight is now a number of documents: the trainer sums it over micro-batches and processes
        # and divides once, so 8 x 1 == 1 x 8 == 2 processes x 4. One without any loss counts as none.
        return LossOutput((sums / weights.clamp(min=1)).sum(), (weights > 0).sum())
