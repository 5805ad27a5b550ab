"""What it does to the process."""

from __future__ import annotations

import torch
from ptsdk.testing import StrategySuite

from ptsdk_example_strategy.strategy import ExampleStrategy


class TestConforms(StrategySuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-strategy/example-strategy"  # dist/name


def test_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        world = ExampleStrategy(device="cpu", threads=1).setup()
        assert (world.size, world.device.type, torch.get_num_threads()) == (1, "cpu", 1)
    finally:
        torch.set_num_threads(before)
