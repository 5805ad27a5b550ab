"""The loss beside a plain reading of the paper."""

from __future__ import annotations

import pytest
import torch
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.testing import LossSuite
from torch.nn.functional import cross_entropy

from ptsdk_example_loss.loss import ExampleLoss


class TestConforms(LossSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-loss/example-loss"  # dist/name


@pytest.mark.parametrize("epsilon", [0.0, 2.0])
def test_the_formula(epsilon: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(11, 8, generator=generator, dtype=torch.float64)
    labels = torch.tensor([3, IGNORE, 0, 10, IGNORE, 7])
    found = ExampleLoss(epsilon=epsilon)(hidden, Head(weight), labels)

    nats = cross_entropy(hidden @ weight.T, labels, ignore_index=IGNORE, reduction="none")[labels != IGNORE]
    torch.testing.assert_close(found.sum, (nats + epsilon * (1 - torch.exp(-nats))).sum())
    assert found.weight == 4
