"""The schedule itself, imported when a job says ``schedule: {use: example-schedule, warmup: 100}``."""

from __future__ import annotations

import math

from ptsdk.contracts.schedule import Schedule
from pydantic import Field


class ExampleSchedule(Schedule):
    """Warm-up, then the inverse square root ("Attention is all you need", arXiv:1706.03762)."""

    # `warmup` is every schedule's: a fraction of all steps below 1, else steps.
    timescale: int = Field(100, ge=1, description="steps after the warm-up until the rate is 1 / sqrt(2) of its peak")

    def factor(self, step: int, total: int) -> float:
        """A pure function of the step: that is why a resumed run needs no state of it."""
        warmup = self.warmup_steps(total)
        if step < warmup:
            return step / warmup
        return math.sqrt(self.timescale / (self.timescale + step - warmup))
