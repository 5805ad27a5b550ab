"""Knowledge distillation: a student learns what a teacher would say of every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from ptsdk.contracts.component import Use
from ptsdk.contracts.loss import Loss, LossOutput
from ptsdk.contracts.method import Method
from ptsdk.contracts.model import ModelFamily
from ptsdk.data.example import Example
from ptsdk.nn.batch import IGNORE, Batch
from ptsdk_kd.linear_kd import linear_distillation
from ptsdk_kd.losses import DistillationLoss

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run
    from ptsdk.job.job import Job

TEACHER = "teacher"


class KD(Method):
    """Minimise ``(1 - ratio) CE + ratio KD`` over the supervised tokens of the data.

    CE is cross-entropy, KD the job's loss: a divergence from the teacher (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", arXiv:1503.02531).
    """

    loss_type: ClassVar[type[Loss]] = DistillationLoss

    teacher: Annotated[ModelFamily, Use("model-family")] = Field(
        description="the model to learn from, {path, dtype}: any family, with the tokenizer of the run",
        examples=[{"use": "tiny", "config": {}}],
    )
    ratio: float = Field(
        0.5, ge=0, le=1, description="share of the teacher: 0 is cross-entropy alone, 1 the divergence alone"
    )

    def frozen_models(self, job: Job) -> Mapping[str, ModelFamily]:
        """The teacher."""
        return {TEACHER: self.teacher}

    def collate(self, run: Run, examples: Sequence[Example]) -> Batch:
        """Every document of every example, end to end."""
        documents = [document for example in examples for document in example.documents]
        return Batch.pack([d.tokens for d in documents], [d.supervised for d in documents])

    def loss(self, run: Run, batch: Batch) -> LossOutput:
        """Both losses on the hidden states of both models; metrics ``ce_loss`` and ``kd_loss``."""
        loss, teacher = run.job.loss, run.frozen[TEACHER]
        assert isinstance(loss, DistillationLoss)  # the job has matched it with loss_type
        with torch.no_grad():  # before any activation of the student is kept
            teacher_states = teacher(batch)
        states = run.model(batch)
        distilled = linear_distillation(
            states, run.model.head(), teacher_states, teacher.head(), batch.labels, loss, self.ratio
        )
        metrics = {"ce_loss": distilled.cross_entropy, "kd_loss": distilled.divergence}
        return LossOutput(distilled.total, (batch.labels != IGNORE).sum(), metrics)
