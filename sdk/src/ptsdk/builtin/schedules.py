"""Learning-rate schedules, with the numbers of transformers' ``get_*_schedule``.

Step 0 of a warm-up has factor 0, as there: the first optimizer step then moves nothing.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from ptsdk.contracts.schedule import Schedule
from ptsdk.errors import Problem, UserError


class Constant(Schedule):
    """Warm-up, then the peak."""

    def factor(self, step: int, total: int) -> float:
        """1 after the warm-up."""
        warmup = self.warmup_steps(total)
        return step / warmup if step < warmup else 1.0


class Linear(Schedule):
    """Warm-up, then a line to zero at ``total``."""

    def factor(self, step: int, total: int) -> float:
        """The line."""
        warmup = self.warmup_steps(total)
        return step / warmup if step < warmup else max(0.0, 1.0 - part(step - warmup, total - warmup))


class Cosine(Schedule):
    """Warm-up, then half a cosine (arXiv:1608.03983, without restarts) to ``min_ratio``."""

    min_ratio: float = Field(0.0, ge=0, le=1, description="where it ends, as a share of the peak")

    def factor(self, step: int, total: int) -> float:
        """The cosine."""
        warmup = self.warmup_steps(total)
        if step < warmup:
            return step / warmup
        return raise_floor(half_cosine(part(step - warmup, total - warmup)), self.min_ratio)


class WSD(Schedule):
    """Warm-up from ``min_ratio``, stable at the peak, decay to ``min_ratio`` (arXiv:2404.06395)."""

    decay: float = Field(0.1, gt=0, description="length of the decay: a fraction of all steps below 1, else steps")
    min_ratio: float = Field(0.0, ge=0, le=1, description="where it starts and ends, as a share of the peak")
    shape: Literal["cosine", "linear", "1-sqrt"] = Field("cosine", description="the curve of the decay")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup < 1 and self.decay < 1 and self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} add up to more than the whole run")
        return self

    def factor(self, step: int, total: int) -> float:
        """The trapezium.

        Raises:
            UserError: warm-up and decay, given in steps, are longer than the run.
        """
        warmup = self.warmup_steps(total)
        start = total - self.decay_steps(total)
        if step < warmup:
            return raise_floor(step / warmup, self.min_ratio)
        if step < start:
            return 1.0
        shape = 0.0 if step >= total else self._curve(part(step - start, total - start))
        return raise_floor(shape, self.min_ratio)

    def decay_steps(self, total: int) -> int:
        """``decay`` in steps: a fraction is rounded up, then cut to what warm-up leaves."""
        room = total - self.warmup_steps(total)
        if self.decay < 1:
            return min(math.ceil(self.decay * total), room)
        if self.decay > room:
            message = f"a decay of {int(self.decay)} steps does not fit: warm-up leaves {max(room, 0)} of {total}"
            raise UserError(Problem(message, "give it as a fraction, such as 0.1", path="schedule.decay"))
        return int(self.decay)

    def _curve(self, x: float) -> float:
        match self.shape:
            case "cosine":
                return half_cosine(x)
            case "linear":
                return 1.0 - x
            case "1-sqrt":
                return 1.0 - math.sqrt(x)


def part(steps: int, of: int) -> float:
    """``steps / of``, where a stretch of no steps counts as one."""
    return steps / max(1, of)


def half_cosine(x: float) -> float:
    """From 1 at ``x`` = 0 to 0 at 1."""
    return 0.5 * (1.0 + math.cos(math.pi * x))


def raise_floor(factor: float, floor: float) -> float:
    """[0, 1] mapped to [floor, 1]."""
    return factor * (1.0 - floor) + floor
