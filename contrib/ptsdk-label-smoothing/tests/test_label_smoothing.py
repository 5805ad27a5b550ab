"""The loss beside torch's own label smoothing, on logits that are made whole."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.testing import LossSuite
from ptsdk_label_smoothing.loss import LabelSmoothing


class TestConforms(LossSuite):
    """The suite of the kind."""

    component = "label-smoothing"


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("biased", [False, True])
def test_loss_and_gradients_are_those_of_torch(smoothing: float, softcap: float | None, biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(shape, generator=generator).double() for shape in ((6, 8), (11, 8), (11,)))
    leaves = [tensor.requires_grad_() for tensor in ([hidden, weight, bias] if biased else [hidden, weight])]
    labels = torch.tensor([3, IGNORE, 0, 10, IGNORE, 7])
    head = Head(weight, bias if biased else None, softcap)
    found = LabelSmoothing(smoothing=smoothing)(hidden, head, labels)
    expected = cross_entropy(
        head.logits(hidden), labels, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing
    )
    torch.testing.assert_close(found.sum, expected)
    assert found.weight == 4
    for mine, theirs in zip(torch.autograd.grad(found.sum, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_nothing_supervised_is_nothing() -> None:
    hidden = torch.randn(3, 8, requires_grad=True)
    for softcap in (None, 2.0):
        found = LabelSmoothing()(hidden, Head(torch.randn(11, 8), None, softcap), torch.full((3,), IGNORE))
        assert (found.sum.item(), found.weight.item()) == (0.0, 0)
