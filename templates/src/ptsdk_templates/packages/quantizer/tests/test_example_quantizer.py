"""The rounding, by hand."""

from __future__ import annotations

import torch
from ptsdk.testing import QuantizerSuite
from torch import nn

from ptsdk_example_quantizer.quantizer import ExampleLinear, rounded


class TestConforms(QuantizerSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-quantizer/example-quantizer"  # dist/name


def test_a_row_is_rounded_to_its_own_grid() -> None:
    weight = torch.tensor([[3.0, -1.4, 0.6], [0.0, 0.0, 0.0]])
    assert rounded(weight, bits=3).tolist() == [[3.0, -1.0, 1.0], [0.0, 0.0, 0.0]]


def test_the_gradient_passes_through() -> None:
    layer = ExampleLinear(nn.Linear(3, 2, bias=False), bits=3)
    layer(torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1.0, 2.0, 3.0]] * 2
