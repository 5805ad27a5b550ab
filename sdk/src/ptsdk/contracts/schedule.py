"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

from pydantic import Field

from ptsdk.contracts.component import Component


class Schedule(Component):
    """The ``schedule:`` section."""

    kind: ClassVar[str] = "schedule"

    warmup: float = Field(0.0, ge=0, description="linear warm-up: a fraction of all steps below 1, else steps")

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """What the learning rate is multiplied by at optimizer step ``step`` of 0..total-1."""

    def warmup_steps(self, total: int) -> int:
        """``warmup`` in steps; a fraction is rounded up, as transformers' TrainingArguments does."""
        return math.ceil(self.warmup * total) if self.warmup < 1 else int(self.warmup)
