"""What a logger and a callback have to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.contracts.events import Callback, RunListener
from ptsdk.contracts.run import Run
from ptsdk.errors import RunError
from ptsdk.testing.jobs import assembled, job_values
from ptsdk.testing.suite import ComponentSuite
from ptsdk.testing.writes import written_files
from ptsdk.train.launch import lock_of, write_inputs

METRICS = {
    "step": 1, "epoch": 0.5, "loss": 2.5, "grad_norm": 1.0, "lr": 1e-3, "tokens": 64, "supervised_tokens": 30,
    "tokens_total": 64, "tokens_per_second": 1000.0, "step_seconds": 0.1, "peak_memory_bytes": 1 << 20,
    "reward/mean": 0.5, "a metric/of-a.method": -1.0,
}  # fmt: skip
VALIDATION = {"step": 1, "epoch": 0.5, "val/loss": 2.25, "val/a metric": 1.0}


class ListenerSuite(ComponentSuite):
    """What loggers and callbacks have in common: real events of a run, told by hand."""

    section: ClassVar[str]

    def staged(self, name: str = "run") -> tuple[Any, Run]:
        """The component, and a run that names it, whose directory is as the trainer leaves it."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        values = job_values(data, self.registry, output_dir=str(self.folder / "work" / name))
        values |= {self.section: [self.written()]}
        values["data"]["validation"] = values["data"]["train"]
        run = assembled(values, self.registry, self.base)
        run_dir = RunDir(run.output_dir)
        run.output_dir.mkdir(parents=True, exist_ok=True)
        write_inputs(run_dir, run.job, lock_of(run))
        return getattr(run.job, self.section)[0], run

    def begin(self, listener: RunListener, run: Run) -> None:
        """The events before the first step."""
        listener.run_start(run)
        listener.model_ready(run)

    def step(self, listener: RunListener, run: Run, step: int, loss: float = 2.5) -> str | None:
        """One step, with its validation, checkpoint and question whether to stop."""
        run.progress.step = step
        listener.step(run, step, {**METRICS, "step": step, "loss": loss})
        listener.validation(run, step, {**VALIDATION, "step": step, "val/loss": loss})
        folder = RunDir(run.output_dir).checkpoint(step)
        folder.mkdir(parents=True, exist_ok=True)
        listener.checkpoint(run, step, folder)
        return listener.should_stop(run, step, METRICS) if isinstance(listener, Callback) else None

    def test_takes_every_event(self) -> None:
        """All of a run in order, metrics of any name, numbers that are not finite: nothing is raised."""
        listener, run = self.staged()
        self.begin(listener, run)
        for step, loss in enumerate((2.5, float("nan"), float("inf"), 2.0), start=1):
            self.step(listener, run, step, loss)
        listener.run_end(run, None)

    def test_takes_the_end_of_a_failed_run(self) -> None:
        """A run that fails before its first step still ends."""
        listener, run = self.staged()
        self.begin(listener, run)
        listener.run_end(run, RunError("step 1: loss nan"))

    def test_leaves_the_run_alone(self) -> None:
        """Listening draws no random number and moves no weight: a job trains the same whoever listens."""
        listener, run = self.staged()
        weights = {name: p.detach().clone() for name, p in run.model.named_parameters()}
        metrics, drawn = dict(METRICS), torch.get_rng_state()
        self.begin(listener, run)
        listener.step(run, 1, metrics)
        listener.run_end(run, None)
        assert torch.get_rng_state().equal(drawn), "a random number was drawn, so dropout comes out otherwise"
        moved = [name for name, p in run.model.named_parameters() if not p.equal(weights[name])]
        assert not moved, f"it changed {', '.join(moved)}"
        assert metrics == METRICS, "it changed the metrics that others get too"

    def test_writes_in_the_run_alone(self) -> None:
        """Files are in the output directory, where an option says, or in what ``writes_beside`` declares."""
        listener, run = self.staged()
        with written_files(self.folder) as found:
            self.begin(listener, run)
            self.step(listener, run, 1)
            listener.run_end(run, None)
            said = [*self.cls.writes_beside, *texts({k: v for k, v in self.written().items() if k != "use"})]
            allowed = [run.output_dir.absolute(), *(Path(text).absolute() for text in said)]
        stray = sorted(str(path) for path in found if not any(path.is_relative_to(place) for place in allowed))
        assert not stray, f"it wrote {', '.join(stray[:5])} beside the output directory"

    def test_state_comes_back(self) -> None:
        """What it keeps in checkpoints is JSON, and a resumed run has it again."""
        listener, run = self.staged()
        self.begin(listener, run)
        for step in (1, 2):
            self.step(listener, run, step)
        state = listener.state(run)
        stored = json.loads(json.dumps(state))
        assert stored == state, f"as JSON the state {state} becomes {stored}"
        listener.run_end(run, RunError("killed"))
        again, resumed = self.staged()
        if stored:  # what a checkpoint does not have is not restored
            again.restore(resumed, stored)
        self.begin(again, resumed)
        assert again.state(resumed) == state, f"after a resume the state is {again.state(resumed)}, it was {state}"
        self.step(again, resumed, 3)
        again.run_end(resumed, None)


class LoggerSuite(ListenerSuite):
    """For the kind ``logger``."""

    kind: ClassVar[str] = "logger"
    section: ClassVar[str] = "loggers"


class CallbackSuite(ListenerSuite):
    """For the kind ``callback``."""

    kind: ClassVar[str] = "callback"
    section: ClassVar[str] = "callbacks"

    def test_stops_with_a_reason(self) -> None:
        """``should_stop`` answers None, or why: the reason is shown and kept in checkpoints."""
        listener, run = self.staged()
        self.begin(listener, run)
        for step in range(1, 9):
            reason = self.step(listener, run, step, 2.0 + step)
            assert reason is None or (isinstance(reason, str) and reason.strip()), f"should_stop answered {reason!r}"
        listener.run_end(run, None)


def texts(value: Any) -> Iterator[str]:
    """Every text in an option's value that may name a place; of a URL what follows its scheme."""
    if isinstance(value, str) and value:
        yield re.sub(r"^[a-z+]{2,}:(//)?/?", "", value) if ":" in value else value
    elif isinstance(value, Mapping):
        yield from (text for part in value.values() for text in texts(part))
    elif isinstance(value, list | tuple):
        yield from (text for part in value for text in texts(part))
