"""Projection to the vocabulary and its loss in one pass, never a [N, V] tensor.

Only supervised rows are projected, some at a time; what a chunk of logits is needed for, the
gradients included, is made while it exists, so that the peak is one chunk of [rows, V]. The idea
of the gradient in the forward is that of Liger Kernel (arXiv:2410.10989); dropping the rows that
carry no loss before the projection costs nothing and is exact.

N rows of hidden states, M of them supervised, width D, vocabulary V.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ptsdk.nn.batch import IGNORE
from ptsdk.nn.elementwise import label_gradients, probabilities_, program
from ptsdk.nn.head import Head, products
from ptsdk.nn.vocabulary_tiles import TILE, Sweep

CHUNK_ELEMENTS = 2**26
"""Logits alive at a time: 256 MiB in float32. The gradient of a head is read and written once for each chunk."""


def linear_cross_entropy(hidden_states: Tensor, head: Head, labels: Tensor) -> Tensor:
    """The sum over supervised rows of ``-log softmax(head.logits(h))[label]``.

    Args:
        hidden_states: [N, D].
        head: the projection; its weight gets a gradient where it asks for one.
        labels: int64 [N], ``IGNORE`` where a row carries no loss.

    Returns:
        A float32 scalar (float64 for float64 input), summed, not averaged; 0 without labels.
    """
    return _apply(LinearCrossEntropy, hidden_states, head, labels)


def linear_log_probs(hidden_states: Tensor, head: Head, labels: Tensor) -> Tensor:
    """``log softmax(head.logits(h))[label]`` of the supervised rows, in order.

    Args:
        hidden_states: [N, D].
        head: as above.
        labels: int64 [N], ``IGNORE`` for the rows to leave out.

    Returns:
        float32 [M] (float64 for float64 input).
    """
    return _apply(LinearLogProbs, hidden_states, head, labels)


def _apply(function: Any, hidden_states: Tensor, head: Head, labels: Tensor) -> Tensor:
    rows, head = (labels != IGNORE).nonzero().squeeze(1), differentiable(head)
    result: Tensor = function.apply(hidden_states[rows], head.weight, head.bias, labels[rows], head)
    return result


def differentiable(head: Head) -> Head:
    """``head``, detached where gradients are switched off: a function that makes its gradient in the
    forward is told of a weight that trains even then."""
    if torch.is_grad_enabled():
        return head
    return replace(head, weight=head.weight.detach(), bias=None if head.bias is None else head.bias.detach())


def row_chunks(rows: int, elements: int) -> Iterator[slice]:
    """Slices of ``rows``, as many at a time as keep ``CHUNK_ELEMENTS`` logits alive with ``elements`` a row."""
    size = chunk_rows(elements)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def chunk_rows(elements: int) -> int:
    """How many rows of so many elements make a chunk."""
    return max(1, CHUNK_ELEMENTS // elements)


def logits_buffer(hidden: Tensor, weight: Tensor, elements: int | None = None) -> Tensor:
    """Room for the logits of the largest chunk of ``hidden``, where ``elements`` a row are alive (V of them
    by default): fresh memory for each chunk would cost more than what is computed in it."""
    rows = min(len(hidden), chunk_rows(elements or len(weight)))
    return hidden.new_empty(rows, len(weight), dtype=torch.promote_types(hidden.dtype, torch.float32))


def sweep(hidden: Tensor, head: Head, labels: Tensor, gradient: Tensor | None) -> Tensor:
    """The log-probability of each label [M] under a head that gets no gradient; that of the negative of their sum by
    ``hidden`` [M, D] goes to ``gradient``, where there is one. No more than a tile of the vocabulary is alive."""
    log_probs = hidden.new_empty(len(labels), dtype=torch.promote_types(hidden.dtype, torch.float32))
    for part in row_chunks(len(labels), TILE):
        swept = Sweep(hidden[part], head, labels[part], gradient is not None)
        log_probs[part] = swept.log_probs
        if gradient is not None:
            gradient[part] = swept.gradient()
    return log_probs


class Gradients:
    """Sums what a loss sends to the hidden states [M, D] and to the head, chunk by chunk.

    Args:
        needs: which of hidden states, weight and bias get a gradient (``ctx.needs_input_grad``).
    """

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needs: tuple[bool, ...]) -> None:
        self.hidden = torch.empty_like(hidden) if needs[0] else None
        self.weight = torch.zeros_like(weight) if needs[1] else None
        self.bias = torch.zeros_like(bias) if bias is not None and needs[2] else None

    def add(self, part: slice, grad_logits: Tensor, hidden: Tensor, weight: Tensor) -> None:
        """Add the share of the rows ``part``: ``grad_logits`` [m, V], ``hidden`` [m, D]."""
        grad = grad_logits.to(hidden.dtype)
        if self.hidden is not None:
            torch.mm(grad, weight, out=self.hidden[part])
        if self.weight is not None:
            self.weight.addmm_(grad.T, hidden)
        if self.bias is not None:
            self.bias.add_(grad.sum(0))

    def scaled(self, factor: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """All of them times a scalar, in place: they are handed on once."""
        parts = (self.hidden, self.weight, self.bias)
        hidden, weight, bias = (part if part is None else part.mul_(factor.to(part.dtype)) for part in parts)
        return hidden, weight, bias


def grad_logits(hidden: Tensor, head: Head, labels: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For each chunk of the rows of ``hidden`` [M, D]: which rows, the log-probabilities [m] of their labels, and
    the gradient of the negative of those by the logits before capping, [m, V]. The next chunk overwrites it."""
    buffer, probabilities = logits_buffer(hidden, head.weight), program(probabilities_, head)
    for part in row_chunks(len(labels), len(head.weight)):
        block, at = products(hidden[part], head.weight, buffer), labels[part].clone()  # a program is told views apart
        log_probs, picked = probabilities(block, head.bias, head.softcap, at)
        block.scatter_(1, at[:, None], label_gradients(log_probs, picked, head.softcap)[:, None])
        yield part, log_probs, block


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies; its gradient is made in the forward, where the logits are."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, head: Head) -> Tensor:
        """hidden [M, D], labels [M] -> scalar."""
        ctx.gradients = gradients = Gradients(hidden, weight, bias, ctx.needs_input_grad)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        if any(ctx.needs_input_grad[1:3]):
            for part, log_probs, block in grad_logits(hidden, head, labels):
                gradients.add(part, block, hidden[part], weight)
                total -= log_probs.sum(dtype=torch.float64)
        else:
            total -= sweep(hidden, head, labels, gradients.hidden).sum(dtype=torch.float64)
        return total.to(torch.promote_types(hidden.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Scale what the forward made and hand it over, so that no second [V, D] is alive.

        Raises:
            RuntimeError: called a second time on the same graph.
        """
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("linear_cross_entropy: backward through the same graph a second time")
        return *gradients.scaled(grad), None, None


class LinearLogProbs(torch.autograd.Function):
    """Log-probability of each label.

    Under a frozen head (LoRA, a reference) the gradient by the hidden states is made in the
    forward, [M, D]; a head that trains makes the logits a second time in the backward instead.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, head: Head) -> Tensor:
        """hidden [M, D], labels [M] -> [M]."""
        eager = ctx.needs_input_grad[0] and not any(ctx.needs_input_grad[1:3])
        gradient = torch.empty_like(hidden) if eager else None
        log_probs = sweep(hidden, head, labels, gradient)
        ctx.head, ctx.eager = head, eager
        ctx.save_for_backward(gradient if eager else hidden, weight, bias, labels)
        return log_probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        """grad [M]; the forward made gradients of the *negative* log-prob."""
        hidden, weight, bias, labels = ctx.saved_tensors
        if ctx.eager:
            return -hidden * grad[:, None].to(hidden.dtype), None, None, None, None
        gradients = Gradients(hidden, weight, bias, ctx.needs_input_grad)
        for part, _, block in grad_logits(hidden, ctx.head, labels):
            gradients.add(part, block.mul_(-grad[part, None]), hidden[part], weight)
        return gradients.hidden, gradients.weight, gradients.bias, None, None
