"""What watches a run and may stop it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ptsdk.contracts.events import Callback

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run


@dataclass(frozen=True)
class Record:
    """The best value so far, the step it came at, and how many values since were no better."""

    best: float | None = None
    step: int = 0
    worse: int = 0


class EarlyStopping(Callback):
    """Stop when a metric has not improved for ``patience`` values in a row."""

    metric: str = Field("val/loss", description="the metric to watch: one of a step's, or val/loss and its like")
    patience: int = Field(3, ge=1, description="values in a row without improvement before stopping")
    min_delta: float = Field(0.0, ge=0, description="a smaller improvement does not count")
    mode: Literal["min", "max"] = Field("min", description="whether less or more is better")

    def needs_validation(self) -> bool:
        """Whether the metric is one of validation."""
        return self.metric.startswith("val/")

    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Note the value, where the metric is one of training."""
        self._note(run, step, metrics)

    def validation(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Note the value, where the metric is one of validation."""
        self._note(run, step, metrics)

    def should_stop(self, run: Run, step: int, metrics: Mapping[str, float]) -> str | None:
        """The reason, once patience is exhausted."""
        record = self._record(run)
        if record.worse < self.patience:
            return None
        best = "no number" if record.best is None else f"{record.best:.6g} at step {record.step}"
        return f"{self.metric} has not improved {record.worse} times in a row; best was {best}"

    def state(self, run: Run) -> dict[str, Any]:
        """The record, so that a resumed run stops where an unbroken one would."""
        return asdict(self._record(run))

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """Put the record back."""
        run.scratch[self] = Record(**state)

    def _record(self, run: Run) -> Record:
        record: Record = run.scratch.get(self, Record())
        return record

    def _note(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        if self.metric in metrics:
            run.scratch[self] = self.update(self._record(run), step, metrics[self.metric])

    def update(self, record: Record, step: int, value: float) -> Record:
        """The record after one more value; NaN is never an improvement."""
        sign = 1 if self.mode == "min" else -1
        first = record.best is None and not math.isnan(value)
        if first or (record.best is not None and sign * value < sign * record.best - self.min_delta):
            return Record(value, step, 0)
        return Record(record.best, record.step, record.worse + 1)
