"""What a learning-rate schedule has to do."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from ptsdk.contracts.schedule import Schedule
from ptsdk.testing.suite import ComponentSuite

TOTALS = (1, 2, 7, 100)
WARMUPS = (0.0, 0.1, 3.0)


class ScheduleSuite(ComponentSuite):
    """For the kind ``schedule``."""

    kind: ClassVar[str] = "schedule"

    def curve(self, schedule: Schedule, total: int) -> list[float]:
        """The factor of every step."""
        return [schedule.factor(step, total) for step in range(total)]

    def test_factors_are_fractions(self) -> None:
        """Each factor of each step is within 0 and 1, for runs of any length."""
        for warmup in WARMUPS:
            for total in TOTALS:
                for step, factor in enumerate(self.curve(self.make(warmup=warmup), total)):
                    assert 0 <= factor <= 1, f"warmup {warmup}: step {step} of {total} has the factor {factor}"

    def test_is_a_pure_function(self) -> None:
        """A step's factor is the same whenever it is asked, in whatever order, or a resume would change it."""
        schedule = self.make()
        forth = self.curve(schedule, 50)
        back = [schedule.factor(step, 50) for step in reversed(range(50))][::-1]
        assert forth == back == self.curve(self.make(), 50), "a factor depends on what was asked before"

    def test_warms_up(self) -> None:
        """During ``warmup`` the factor rises step by step, and reaches 1 where it ends."""
        total = 100
        for warmup in (0.25, 10.0):
            schedule = self.make(warmup=warmup)
            steps = schedule.warmup_steps(total)
            curve = self.curve(schedule, total)
            rising = curve[: steps + 1]
            assert all(a < b for a, b in pairwise(rising)), f"warmup {warmup}: it does not rise"
            assert abs(max(rising) - 1) < 1e-9, f"warmup {warmup}: after {steps} steps it is at {max(rising)}, not 1"

    def test_some_step_learns(self) -> None:
        """A run of any length has a step with a factor above 0."""
        for total in TOTALS:
            assert any(self.curve(self.make(), total)), f"no step of a run of {total} would learn anything"
