"""Cross-entropy whose targets leave a share of the probability to all other tokens."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ptsdk.contracts.loss import LossOutput, TokenLoss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.nn.linear_loss import linear_log_probs, row_chunks


class LabelSmoothing(TokenLoss):
    """``(1 - smoothing) CE + smoothing mean_v(-log p_v)`` over the vocabulary (arXiv:1512.00567), in nats."""

    smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target that is spread over the vocabulary")

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        """[N, D], head, [N] -> the sum over supervised tokens; the weight is their number."""
        rows = (labels != IGNORE).nonzero().squeeze(1)
        log_probs = linear_log_probs(hidden_states, head, labels)
        # log p_v = z_v - log sum exp z, whose second term is the same for all v. So the mean of log p_v is
        # log p_label moved by mean(z) - z_label, and no [M, V] tensor has to be kept for it.
        shift = mean_logits(hidden_states[rows], head) - label_logits(hidden_states[rows], head, labels[rows])
        losses = -log_probs - self.smoothing * shift
        return LossOutput(losses.sum(), torch.tensor(len(rows), device=losses.device))


def label_logits(hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
    """The logit of each row's label: [M, D], [M] -> [M]."""
    logits = (wide(hidden) * wide(head.weight[labels])).sum(-1)
    logits = logits if head.bias is None else logits + wide(head.bias[labels])
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def mean_logits(hidden: Tensor, head: Head) -> Tensor:
    """The mean of each row's logits over the vocabulary: [M, D] -> [M]."""
    if head.softcap is None:  # the mean of a projection is the projection to the mean row
        means = wide(hidden) @ wide(head.weight).mean(0)
        return means if head.bias is None else means + wide(head.bias).mean()
    # Capped logits have no such mean. They are made some rows at a time, and again in the backward.
    chunks = row_chunks(len(hidden), len(head.weight))
    parts = [checkpoint(_mean_of_capped, hidden[part], head, use_reentrant=False) for part in chunks]
    return torch.cat([hidden.new_empty(0), *parts])


def _mean_of_capped(hidden: Tensor, head: Head) -> Tensor:
    return wide(head.logits(hidden)).mean(-1)


def wide(x: Tensor) -> Tensor:
    """In at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
