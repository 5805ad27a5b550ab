"""What lies between the two matrix products of a head and its loss: plain functions of one block of logits.

Each takes products as they come, overwrites them with what the second matrix product needs, and returns the
few numbers a row that a loss is made of. Under ``train.compile: {loss: true}`` each is one program, so that a
block is read and written a few times instead of once for every line here.

m rows, v columns of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from ptsdk.nn.head import Head, capped_

P = ParamSpec("P")
R = TypeVar("R")


def program(function: Callable[P, R], head: Head) -> Callable[P, R]:
    """``function``, compiled for all sizes where ``head`` asks for it."""
    return torch.compile(function, dynamic=True) if head.compiled else function


def slopes(logits: Tensor, softcap: float | None) -> Tensor | None:
    """What capped logits move by when those before capping do; None for 1."""
    return None if softcap is None else 1 - (logits / softcap).square_()


def softmax_(logits: Tensor, labels: Tensor) -> Tensor:
    """Turn ``logits`` [m, v] into probabilities; the log-probability [m] of each label, which would be lost
    where its probability is 0 in floating point."""
    picked, top = logits.gather(1, labels[:, None]).squeeze(1), logits.amax(1)
    if torch.compiler.is_compiling():  # in one pass for the sum and one for the quotient, where it would take three
        total = top + (logits - top[:, None]).exp().sum(1).log()
        logits.sub_(total[:, None]).exp_()
        return picked - total
    torch.softmax(logits, -1, out=logits)
    return picked - top + logits.amax(1).log()


def probabilities_(
    products: Tensor, bias: Tensor | None, softcap: float | None, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn ``products`` [m, v] into probabilities times the slope of the cap, which is the gradient of the
    logarithm of their normaliser.

    Returns:
        The log-probabilities and the logits at ``labels``: [m] each.
    """
    logits = capped_(products, bias, softcap)
    slope, picked = slopes(logits, softcap), logits.gather(1, labels[:, None]).squeeze(1)
    log_probs = softmax_(logits, labels)
    if slope is not None:
        logits.mul_(slope)
    return log_probs, picked


def exponentials_(
    products: Tensor, bias: Tensor | None, softcap: float | None, labels: Tensor, top: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn ``products`` [m, v] into ``exp(logits - new_top)`` times the slope of the cap.

    Args:
        labels: int64 [m], columns of this block.
        top: [m], the largest logit of the blocks before.

    Returns:
        ``new_top``, the sums of the exponentials, and the logits at ``labels``: [m] each.
    """
    logits = capped_(products, bias, softcap)
    slope, picked = slopes(logits, softcap), logits.gather(1, labels[:, None]).squeeze(1)
    new_top = torch.maximum(top, logits.amax(1))
    total = logits.sub_(new_top[:, None]).exp_().sum(1)
    if slope is not None:
        logits.mul_(slope)
    return new_top, total, picked


def label_gradients(log_probs: Tensor, label_logits: Tensor, softcap: float | None) -> Tensor:
    """What the labels' own logits, before capping, get from the negative of ``log_probs``: ``p - 1`` times the
    slope [m], exact where p is near 1."""
    slope = slopes(label_logits, softcap)
    return torch.expm1(log_probs) if slope is None else torch.expm1(log_probs).mul_(slope)
