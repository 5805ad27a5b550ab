"""The callback itself, imported when a job says ``callbacks: [{use: example-callback, loss: 0.5}]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ptsdk.contracts.events import Callback
from pydantic import Field

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run


class ExampleCallback(Callback):
    """Stop after the first step whose loss is low enough; what was trained is saved as usual."""

    loss: float = Field(examples=[0.5], description="the loss of a step at which to stop")

    def should_stop(self, run: Run, step: int, metrics: Mapping[str, float]) -> str | None:
        """The reason, told to the user, or None. Asked after each step and each validation; the
        metrics of the latter are named ``val/...`` and have no ``loss``."""
        if metrics.get("loss", float("inf")) <= self.loss:
            return f"the loss is {metrics['loss']:.4f}, at most {self.loss}"
        return None
