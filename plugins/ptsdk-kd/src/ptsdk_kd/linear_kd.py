"""Both models' projections to the vocabulary, cross-entropy and divergence, in one pass.

As in ``ptsdk.nn.linear_loss``: only supervised rows are projected, some at a time, and the gradient is
made while their logits exist. A chunk serves both losses, and neither model's log-probs are ever alive
for the whole batch.

N rows of hidden states, M of them supervised; the student has width D and vocabulary V, the teacher
its own of each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import log_softmax

from ptsdk.nn.batch import IGNORE
from ptsdk.nn.elementwise import program
from ptsdk.nn.head import Head, logits_of
from ptsdk.nn.linear_loss import Gradients, differentiable, logits_buffer, row_chunks
from ptsdk_kd.losses import DistillationLoss


class Distilled(NamedTuple):
    """Scalar sums over supervised rows, float32 (float64 for float64 input).

    Attributes:
        total: ``(1 - ratio) cross_entropy + ratio divergence``, with gradient.
        cross_entropy: of the labels under the student, without gradient.
        divergence: of the student from the teacher, without gradient.
    """

    total: Tensor
    cross_entropy: Tensor
    divergence: Tensor


def linear_distillation(
    hidden_states: Tensor,
    head: Head,
    teacher_states: Tensor,
    teacher_head: Head,
    labels: Tensor,
    loss: DistillationLoss,
    ratio: float,
) -> Distilled:
    """Cross-entropy and divergence of the supervised rows.

    Where one vocabulary is padded to more rows than the other, the divergence is between the
    distributions over the rows that both have; cross-entropy is over all of the student's.

    Args:
        hidden_states: [N, D] of the student.
        head: the student's; its weight gets a gradient where it asks for one.
        teacher_states: [N, D'] of the teacher on the same tokens; gets no gradient.
        teacher_head: the teacher's.
        labels: int64 [N], ``IGNORE`` where a row carries no loss.
        loss: the divergence, of the distributions that the logits make at its temperature. It is not
            multiplied by the temperature squared, as Hinton et al. propose: what is logged is the
            divergence itself, as in TRL.
        ratio: the share of the divergence, 0 to 1.
    """
    rows, head = (labels != IGNORE).nonzero().squeeze(1), differentiable(head)
    function: Any = LinearDistillation
    student = (hidden_states[rows], head.weight, head.bias, head)
    return Distilled(*function.apply(*student, teacher_states[rows], teacher_head, labels[rows], loss, ratio))


class LinearDistillation(torch.autograd.Function):
    """The sums of ``Distilled``; the gradient is made in the forward, where the logits are."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        teacher_hidden: Tensor,
        teacher: Head,
        labels: Tensor,
        loss: DistillationLoss,
        ratio: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """hidden [M, D], teacher_hidden [M, D'], labels [M] -> three scalars."""
        trains = any(ctx.needs_input_grad[:3])
        gradients = Gradients(hidden, weight, bias, ctx.needs_input_grad)
        teacher = _shortened(teacher, len(weight))
        sums = torch.zeros(2, dtype=torch.float64, device=hidden.device)
        elements = len(weight) + len(teacher.weight)
        buffers = logits_buffer(hidden, weight, elements), logits_buffer(teacher_hidden, teacher.weight, elements)
        uncapped, losses_of = replace(head, softcap=None), program(_losses, head)
        for part in row_chunks(len(labels), elements):
            logits = logits_of(hidden[part], uncapped, buffers[0]).detach().requires_grad_(trains)
            targets = logits_of(teacher_hidden[part], teacher, buffers[1])
            with torch.set_grad_enabled(trains):
                losses = losses_of(logits, head.softcap, targets, labels[part], loss)
                total = _mixed(losses, ratio)
            sums += losses.detach()
            if trains:
                (grad_logits,) = torch.autograd.grad(total, logits)
                gradients.add(part, grad_logits, hidden[part], weight)
        ctx.gradients = gradients
        ctx.set_materialize_grads(False)
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        outputs = _mixed(sums, ratio).to(dtype), sums[0].to(dtype), sums[1].to(dtype)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        """Scale what the forward made and hand it over, so that no second [V, D] is alive.

        Raises:
            RuntimeError: called a second time on the same graph.
        """
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("linear_distillation: backward through the same graph a second time")
        return *gradients.scaled(grad), *[None] * 6


def _shortened(head: Head, rows: int) -> Head:
    """``head`` without the tokens that the other vocabulary does not have."""
    return replace(head, weight=head.weight[:rows], bias=None if head.bias is None else head.bias[:rows])


def _losses(logits: Tensor, softcap: float | None, targets: Tensor, labels: Tensor, loss: DistillationLoss) -> Tensor:
    """[m, V], to be capped, and [m, V'], V' <= V, which is overwritten -> the sums of cross-entropies and of
    divergences: float64 [2]."""
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    log_probs = log_softmax(logits, -1)
    cross_entropies = -log_probs.gather(1, labels[:, None]).squeeze(1)
    if loss.temperature != 1:
        targets, logits = targets.div_(loss.temperature), logits / loss.temperature
    if loss.temperature != 1 or logits.shape != targets.shape:
        log_probs = log_softmax(logits[:, : targets.shape[1]], -1)
    divergences = loss(log_probs, torch.log_softmax(targets, -1, out=targets))
    return torch.stack([values.sum(dtype=torch.float64) for values in (cross_entropies, divergences)])


def _mixed(losses: Tensor, ratio: float) -> Tensor:
    return (1 - ratio) * losses[0] + ratio * losses[1]
