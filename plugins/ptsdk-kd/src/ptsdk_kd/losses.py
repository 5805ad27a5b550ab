"""Losses of distillation: how far a student's distribution of the next token is from a teacher's.

m tokens, V tokens in the vocabulary that both models have.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor

from ptsdk.contracts.loss import Loss


class DistillationLoss(Loss):
    """A divergence between two distributions, for the method kd. A subclass writes ``__call__``; its
    gradient is found by autograd, on some rows at a time."""

    temperature: float = Field(
        1.0, gt=0, description="both models' logits are divided by it: above 1 the teacher's unlikely tokens count more"
    )

    @abstractmethod
    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The divergence at each token, [m], in nats.

        Args:
            student: log-probs [m, V] in at least float32, with gradient.
            teacher: the same of the teacher, without.
        """


class ForwardKL(DistillationLoss):
    """``KL(teacher || student)``: the student covers all that the teacher finds likely (arXiv:1503.02531)."""

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See the contract."""
        return kl(teacher, student)


class ReverseKL(DistillationLoss):
    """``KL(student || teacher)``: the student keeps to what the teacher finds likely (MiniLLM, arXiv:2306.08543)."""

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See the contract."""
        return kl(student, teacher)


class JSD(DistillationLoss):
    """``beta KL(teacher || m) + (1 - beta) KL(student || m)``, ``m = beta teacher + (1 - beta) student``.

    The generalised Jensen-Shannon divergence of GKD (arXiv:2306.13649, eq. 1), between 0 and ln 2.
    At the ends of ``beta``, where it is 0, GKD means the KL that it becomes when divided by ``beta``
    or ``1 - beta``: forward at 0, reverse at 1.
    """

    beta: float = Field(
        0.5, ge=0, le=1, description="weight of the teacher in the mixture; 0 is forward_kl, 1 is reverse_kl"
    )

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See the contract."""
        if self.beta in (0, 1):
            return kl(student, teacher) if self.beta else kl(teacher, student)
        mixture = torch.logaddexp(student + math.log1p(-self.beta), teacher + math.log(self.beta))
        return self.beta * kl(teacher, mixture) + (1 - self.beta) * kl(student, mixture)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """``KL(p || q)`` of log-probs [..., V], in nats: [...]."""
    return (p.exp() * (p - q)).sum(-1)
