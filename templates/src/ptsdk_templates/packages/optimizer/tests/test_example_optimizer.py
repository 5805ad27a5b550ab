"""The optimizer beside a plain reading of the paper."""

from __future__ import annotations

import torch
from ptsdk.testing import OptimizerSuite
from torch import nn

from ptsdk_example_optimizer.optimizer import ExampleOptimizer


class TestConforms(OptimizerSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-optimizer/example-optimizer"  # dist/name


def test_three_steps_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = ExampleOptimizer(lr=0.1, momentum=0.5).build({"w": parameter})
    value, mean = [1.0, -2.0, 0.5], [0.0, 0.0, 0.0]
    for gradient in ([1.0, -1.0, 0.0], [-4.0, -1.0, 0.0], [1.0, 3.0, 2.0]):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        mean = [0.5 * m + 0.5 * g for m, g in zip(mean, gradient, strict=True)]
        value = [v - 0.1 * ((m > 0) - (m < 0)) for v, m in zip(value, mean, strict=True)]
    torch.testing.assert_close(parameter.detach(), torch.tensor(value))
