"""Where metrics go: the terminal, and a file beside the checkpoints."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import Field

from ptsdk.contracts.events import Logger

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ptsdk.contracts.run import Run


class Jsonl(Logger):
    """``metrics.jsonl`` in the output directory: a row a step, on disk when the step ends."""

    def run_start(self, run: Run) -> None:
        """Open the file for appending, so that a resumed run goes on where the last one ended."""
        run.output_dir.mkdir(parents=True, exist_ok=True)
        run.scratch[self] = (run.output_dir / "metrics.jsonl").open("a", encoding="utf-8")

    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Write the step's row."""
        self._write(run, metrics)

    def validation(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Write a row of its own."""
        self._write(run, metrics)

    def run_end(self, run: Run, error: BaseException | None) -> None:
        """Close the file."""
        run.scratch.pop(self).close()

    def _write(self, run: Run, metrics: Mapping[str, float]) -> None:
        file: TextIO = run.scratch[self]
        file.write(json_row(metrics))
        file.flush()


class Console(Logger):
    """A progress bar on a terminal; elsewhere a line every so many steps. All of it on stderr."""

    every: int = Field(10, ge=1, description="steps between lines, where stderr is not a terminal")

    def run_start(self, run: Run) -> None:
        """Show where the run starts, which on resume is not 0."""
        run.scratch[self] = _Bar.start(run) if sys.stderr.isatty() else _Lines()

    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Move the bar, or write a line if one is due: the first, each ``every``-th, the last."""
        view: _View = run.scratch[self]
        view.done += 1
        due = view.done == 1 or step % self.every == 0 or step == run.total_steps
        view.show(step, run.total_steps, metrics, due)

    def validation(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Remember the loss for the bar; as a line, show all of it."""
        view: _View = run.scratch[self]
        view.validated(step, metrics)

    def run_end(self, run: Run, error: BaseException | None) -> None:
        """Leave the terminal as it was."""
        run.scratch.pop(self).close()


@dataclass
class _Lines:
    """Plain lines, for a log file or a pipe."""

    done: int = 0
    started: float = field(default_factory=time.perf_counter)

    def show(self, step: int, total: int, metrics: Mapping[str, float], due: bool) -> None:
        if due:
            left = (time.perf_counter() - self.started) / self.done * (total - step)
            self._print(f"step {step}/{total}  {describe(metrics)}  eta {duration(left)}")

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name.startswith("val/"))
        self._print(f"step {step}  {values}")

    def close(self) -> None:
        pass

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


@dataclass
class _Bar:
    """A bar of rich, which lets what others write to the terminal pass above it."""

    progress: Progress
    task: TaskID
    validation: str = ""
    done: int = 0

    @classmethod
    def start(cls, run: Run) -> _Bar:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
        )
        progress = Progress(*columns, console=Terminal(stderr=True))
        task = progress.add_task("", total=run.total_steps, completed=run.progress.step)
        progress.start()
        return cls(progress, task)

    def show(self, step: int, total: int, metrics: Mapping[str, float], due: bool) -> None:
        self.progress.update(self.task, completed=step, description=describe(metrics) + self.validation)

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        if "val/loss" in metrics:
            self.validation = f"  val {metrics['val/loss']:.4f}"

    def close(self) -> None:
        self.progress.stop()


_View = _Lines | _Bar


def json_row(metrics: Mapping[str, float]) -> str:
    """One line of JSON. A number that is not finite becomes null: JSON has no other word for it."""
    row: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    return json.dumps(row, allow_nan=False) + "\n"


def describe(metrics: Mapping[str, float]) -> str:
    """Loss, learning rate and speed in a few words; what a method does not report is left out."""
    formats = {
        "loss": "loss {:.4f}",
        "reward/mean": "reward {:.4f}",
        "lr": "lr {:.2e}",
        "tokens_per_second": "{:.0f} tokens/s",
    }
    return "  ".join(form.format(metrics[name]) for name, form in formats.items() if name in metrics)


def duration(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
