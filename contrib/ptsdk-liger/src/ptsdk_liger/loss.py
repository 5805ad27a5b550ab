"""Core's cross-entropy, in the kernels of Liger Kernel (arXiv:2410.10989)."""

from __future__ import annotations

import torch
from torch import Tensor

from ptsdk.contracts.loss import LossOutput, TokenLoss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.nn.linear_loss import differentiable


class LigerCrossEntropy(TokenLoss):
    """``-log p(label)`` summed over supervised tokens, in nats; the gradient is made in the forward.

    A chunk of logits has as many numbers as the hidden states, and softmax, loss and gradient are one
    kernel over it. The head's gradient is summed in float32 over the chunks.
    """

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        """[N, D], head, [N] -> the sum over supervised tokens; the weight is their number."""
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # needs Triton and a GPU

        rows, head = (labels != IGNORE).nonzero().squeeze(1), differentiable(head)
        weight = torch.tensor(len(rows), device=hidden_states.device)
        if not len(rows):  # the kernel has no grid for nothing
            return LossOutput(hidden_states.sum() * 0, weight)
        kernel = LigerFusedLinearCrossEntropyLoss(
            ignore_index=IGNORE, reduction="sum", softcap=head.softcap, accum_dtype=torch.float32
        )
        return LossOutput(kernel(head.weight, hidden_states[rows], labels[rows], head.bias), weight)
