"""The optimizer beside the paper's algorithm, a number at a time."""

from __future__ import annotations

import torch
from torch import nn

from ptsdk.testing import OptimizerSuite
from ptsdk_lion.optimizer import Lion


class TestConforms(OptimizerSuite):
    """The suite of the kind."""

    component = "lion"


LR, B1, B2, DECAY = 0.01, 0.9, 0.99, 0.1


def sign(x: float) -> int:
    return (x > 0) - (x < 0)


def algorithm_2(theta: float, gradients: list[float], decay: float) -> float:
    """The paper's pseudocode for one weight, line by line."""
    m = 0.0
    for g in gradients:
        c = B1 * m + (1 - B1) * g
        theta = theta - LR * (sign(c) + decay * theta)
        m = B2 * m + (1 - B2) * g
    return theta


def test_every_weight_follows_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    start = {"matrix": torch.randn(3, 2, generator=generator), "norm": torch.randn(2, generator=generator)}
    parameters = {name: nn.Parameter(tensor.double()) for name, tensor in start.items()}
    gradients = [{n: torch.randn(t.shape, generator=generator).double() for n, t in start.items()} for _ in range(20)]
    optimizer = Lion(lr=LR, betas=(B1, B2), weight_decay=DECAY).build(parameters)
    for step in gradients:
        for name, parameter in parameters.items():
            parameter.grad = step[name].clone()
        optimizer.step()
    for name, parameter in parameters.items():
        decay = DECAY if parameter.ndim >= 2 else 0.0
        series = torch.stack([step[name].flatten() for step in gradients], dim=1).tolist()
        expected = [
            algorithm_2(x, g, decay) for x, g in zip(start[name].double().flatten().tolist(), series, strict=True)
        ]
        torch.testing.assert_close(parameter.detach().flatten(), torch.tensor(expected, dtype=torch.float64))


def test_one_number_of_state_a_weight() -> None:
    parameter = nn.Parameter(torch.ones(4, 3))
    optimizer = Lion().build({"w": parameter})
    parameter.grad = torch.ones(4, 3)
    optimizer.step()
    assert {key: value.shape for key, value in optimizer.state[parameter].items()} == {"mean": parameter.shape}
