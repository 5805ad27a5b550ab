"""Between a live run and its checkpoints: what is saved, and how it is put back."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ptsdk.checkpoint.files import WriteError
from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.checkpoint.state import CheckpointContents, capture_rng, restore_rng, save_checkpoint
from ptsdk.checkpoint.weights import adapter_names
from ptsdk.contracts.run import Progress, Run
from ptsdk.train.events import RunEventBus


@dataclass(frozen=True)
class Saver:
    """Writes the checkpoints of a run, and keeps the newest ``keep_last``."""

    run_dir: RunDir
    keep_last: int | None
    on_error: Literal["stop", "continue"] = "stop"

    def save(self, run: Run, events: RunEventBus, *, needed: bool = False) -> None:
        """A checkpoint of the step just finished. Called by all processes together.

        Args:
            needed: the run ends here, and what is not saved is lost.

        Raises:
            WriteError: it could not be written, and the run is to stop for that, or the checkpoint was
                ``needed``. Earlier ones are as they were.
        """
        own = adapter_names(run.job.adapter, run.model)
        tensors = run.strategy.gather(run.model, own or [name for name, _ in run.model.named_parameters()])
        optimizer = run.strategy.gather_optimizer(run.model, run.optimizer)
        state = {
            "progress": asdict(run.progress),
            "rng": run.strategy.collect(capture_rng()),
            "method": run.job.method.state(run),
            "listeners": events.state(run),
        }
        if run.world.is_main:
            adapter = run.job.adapter
            model = (lambda folder: adapter.save(tensors, folder, run.base_model)) if own else tensors
            try:
                path = save_checkpoint(self.run_dir, run.progress.step, model, optimizer, state)
                self.run_dir.prune(self.keep_last, run.progress.step)
                events.checkpoint(run, run.progress.step, path)
            except WriteError as error:
                if needed or self.on_error == "stop":
                    raise
                print(f"ptsdk: {error}\n    the run goes on (train.on_save_error)", file=sys.stderr, flush=True)
        run.strategy.barrier()


def restore(run: Run, events: RunEventBus, contents: CheckpointContents) -> list[str]:
    """Put a freshly assembled run where the checkpoint left it; warnings for the user."""
    tensors = contents.model if contents.adapter is None else run.job.adapter.load(contents.adapter, run.model)
    assert tensors is not None
    run.strategy.load(run.model, tensors, run.world, next(run.model.parameters()).dtype)
    run.strategy.load_optimizer(run.model, run.optimizer, contents.optimizer_state)
    state = contents.state
    run.progress = Progress(**state["progress"])
    run.job.method.restore(run, state["method"])
    events.restore(run, state["listeners"])
    return _restore_rng(run, state["rng"])


def _restore_rng(run: Run, states: list[dict[str, Any]]) -> list[str]:
    if len(states) == run.world.size:
        return restore_rng(states[run.world.rank])
    return [f"the checkpoint was written by {len(states)} processes, here are {run.world.size}: dropout starts anew"]
