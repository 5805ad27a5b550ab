"""Learning-rate schedules."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, field_serializer

from ptsdk.contracts.schedule import Schedule

LAST: dict[str, int] = {"step": -1}


class Sound(Schedule):
    """Warm-up, then constant."""

    def factor(self, step: int, total: int) -> float:
        warmup = self.warmup_steps(total)
        return min(1.0, (step + 1) / (warmup + 1))


class Undescribed(Sound):
    peak: float = 1.0


class Lenient(Sound):
    model_config = ConfigDict(extra="ignore")


class Rounding(Sound):
    peak: float = Field(0.75, description="recorded as a whole number")

    @field_serializer("peak")
    def _whole(self, peak: float) -> Any:
        return round(peak)


class Thawed(Sound):
    model_config = ConfigDict(frozen=False)


class Negative(Sound):
    def factor(self, step: int, total: int) -> float:
        return -0.1 if step > 0.9 * total else super().factor(step, total)


class Impure(Sound):
    """Half where the steps go backwards."""

    def factor(self, step: int, total: int) -> float:
        backwards, LAST["step"] = step < LAST["step"], step
        return super().factor(step, total) * (0.5 if backwards else 1.0)


class Cold(Sound):
    def factor(self, step: int, total: int) -> float:
        return 1.0


class IdleWhenShort(Sound):
    def factor(self, step: int, total: int) -> float:
        return super().factor(step, total) if total > 10 else 0.0
