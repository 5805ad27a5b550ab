"""The logger itself, imported when a job says ``loggers: [{use: example-logger, every: 2}]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from ptsdk.contracts.events import Logger
from pydantic import Field

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run


class ExampleLogger(Logger):
    """``progress.txt`` in the output directory. Only the main process is told of events, and what a
    logger raises is reported once and ends no run."""

    every: int = Field(10, ge=1, description="steps between two lines")

    def run_start(self, run: Run) -> None:
        """Open the file for appending, so that a resumed run goes on where the last one ended."""
        # The component is frozen options. What it must remember between events is the run's.
        run.scratch[self] = (run.output_dir / "progress.txt").open("a", encoding="utf-8")

    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """A line, if one is due; it is on disk when the step ends."""
        if step % self.every == 0:
            file: TextIO = run.scratch[self]
            file.write(f"step {step}: loss {metrics['loss']:.4f}\n")
            file.flush()

    def run_end(self, run: Run, error: BaseException | None) -> None:
        """Close the file, however the run ended."""
        run.scratch.pop(self).close()
