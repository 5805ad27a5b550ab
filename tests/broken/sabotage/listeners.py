"""Loggers and a callback."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ptsdk.contracts.events import Callback, Logger

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run


class StrictNumbers(Logger):
    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        json.dumps(dict(metrics), allow_nan=False)


class NeedsAStep(Logger):
    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        run.scratch[self] = step

    def run_end(self, run: Run, error: BaseException | None) -> None:
        run.scratch.pop(self)


class Drawing(Logger):
    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        torch.rand(1)


class Straying(Logger):
    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        Path("log.txt").write_text(str(step))


class Eponymous(Logger):
    """Into a folder of its own name, which no option says."""

    def run_start(self, run: Run) -> None:
        Path("eponymous").mkdir(exist_ok=True)
        Path("eponymous", "log.txt").touch()


class Temporary(Logger):
    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        with tempfile.NamedTemporaryFile("w", delete=False) as file:
            file.write(str(step))


class Absolute(Logger):
    """Beside the run, by a path that no working directory changes."""

    def run_end(self, run: Run, error: BaseException | None) -> None:
        (run.output_dir.parents[2] / f"{run.output_dir.parents[1].name}.log").write_text("over")


class Amnesiac(Logger):
    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        run.scratch[self] = step

    def state(self, run: Run) -> dict[str, Any]:
        return {"seen": run.scratch.get(self, 0)}


class SaysTrue(Callback):
    def should_stop(self, run: Run, step: int, metrics: Mapping[str, float]) -> Any:
        return step > 2
