"""A few points of the curve."""

from __future__ import annotations

import pytest
from ptsdk.testing import ScheduleSuite

from ptsdk_example_schedule.schedule import ExampleSchedule


class TestConforms(ScheduleSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-schedule/example-schedule"  # dist/name


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (5, 0.5), (10, 1.0), (110, 0.5**0.5), (310, 0.5)])
def test_the_curve(step: int, factor: float) -> None:
    assert ExampleSchedule(warmup=10, timescale=100).factor(step, total=1000) == pytest.approx(factor)
