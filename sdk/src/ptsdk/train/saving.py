"""Between a live run and its checkpoints: what is saved, and how it is put back."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptsdk.checkpoint.files import WriteError
from ptsdk.checkpoint.parts import plain
from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.checkpoint.state import CheckpointContents, Draft, capture_rng, draft_checkpoint, restore_rng
from ptsdk.checkpoint.weights import adapter_names
from ptsdk.contracts.run import Progress, Run
from ptsdk.job.sections import TrainSection
from ptsdk.train.events import RunEventBus


class Saver:
    """Writes the checkpoints of a run, and keeps the newest ``train.keep_last``.

    With ``train.async_save`` a thread writes a copy while training goes on; the trainer asks after each step
    whether it is done. There is one such write at a time, and none outlives ``completing``.
    """

    def __init__(self, run_dir: RunDir, train: TrainSection, device: torch.device) -> None:
        self._run_dir, self._train = run_dir, train
        self._aside = saves_aside(train, device)
        self._thread = ThreadPoolExecutor(1, "ptsdk-save")
        self._writing: tuple[int, Future[Path]] | None = None

    def save(self, run: Run, events: RunEventBus, *, last: bool = False, needed: bool = False) -> None:
        """A checkpoint of the step just finished. Called by all processes together.

        Args:
            last: no training follows, so it is complete on disk when this returns.
            needed: what is not saved is lost.

        Raises:
            WriteError: it, or the one before, could not be written, and the run is to stop for that, or the
                checkpoint was ``needed``. Earlier ones are as they were.
        """
        self.settle(run, events, wait=True)
        draft = _draft(run, events)
        if run.world.is_main and self._aside and not last:
            self._writing = draft.step, self._thread.submit(self._write, draft.apart(_live(run)))
        elif run.world.is_main:
            written = functools.partial(self._write, draft)
            self._tell(run, events, draft.step, written, stop=needed or self._stops)
        run.strategy.barrier()

    def settle(self, run: Run, events: RunEventBus, *, wait: bool = False) -> None:
        """Tell of the checkpoint that was being written, if it is done.

        Args:
            wait: until it is.

        Raises:
            WriteError: it could not be written, and the run is to stop for that.
        """
        self._settle(run, events, wait, self._stops)

    @contextmanager
    def completing(self, run: Run, events: RunEventBus) -> Iterator[None]:
        """When the block has ended, however it did, nothing is being written any more."""
        try:
            yield
        except BaseException:
            self._settle(run, events, wait=True, stop=False)
            raise
        else:
            self._settle(run, events, wait=True, stop=self._stops)
        finally:
            self._thread.shutdown()

    @property
    def _stops(self) -> bool:
        return self._train.on_save_error == "stop"

    def _write(self, draft: Draft) -> Path:
        path = draft.write(self._run_dir)
        self._run_dir.prune(self._train.keep_last, draft.step)
        return path

    def _settle(self, run: Run, events: RunEventBus, wait: bool, stop: bool) -> None:
        if self._writing and (wait or self._writing[1].done()):
            (step, future), self._writing = self._writing, None
            self._tell(run, events, step, future.result, stop)

    def _tell(self, run: Run, events: RunEventBus, step: int, written: Callable[[], Path], stop: bool) -> None:
        try:
            events.checkpoint(run, step, written())
        except WriteError as error:
            if stop:
                raise
            print(f"ptsdk: {error}\n    the run goes on (train.on_save_error)", file=sys.stderr, flush=True)


def saves_aside(train: TrainSection, device: torch.device) -> bool:
    """Whether a copy is written while training goes on: where a device's memory is copied anyway, or as told."""
    return device.type != "cpu" if train.async_save == "auto" else train.async_save


def _draft(run: Run, events: RunEventBus) -> Draft:
    """What a checkpoint holds now; on the main process, whole."""
    own, adapter, base = adapter_names(run.job.adapter, run.model), run.job.adapter, run.base_model
    tensors = run.strategy.gather(run.model, own or [name for name, _ in run.model.named_parameters()])
    optimizer = run.strategy.gather_optimizer(run.model, run.optimizer)
    state = {
        "progress": asdict(run.progress),
        "rng": run.strategy.collect(capture_rng()),
        "method": run.job.method.state(run),
        "listeners": events.state(run),
    }
    save = (lambda weights, folder: adapter.save(weights, folder, base)) if own else None
    return draft_checkpoint(run.progress.step, tensors, optimizer, state, save)


def _live(run: Run) -> set[int]:
    """The addresses of all storages that training goes on to write to."""
    entries = (value for entry in run.optimizer.state.values() for value in entry.values())
    tensors: list[Tensor] = [p for p in run.model.parameters() if p.requires_grad]
    tensors += [value for value in entries if isinstance(value, Tensor)]
    return {part.untyped_storage().data_ptr() for tensor in tensors for part in plain(tensor.detach())}


def restore(run: Run, events: RunEventBus, contents: CheckpointContents) -> list[str]:
    """Put a freshly assembled run where the checkpoint left it; warnings for the user."""
    tensors = contents.model if contents.adapter is None else run.job.adapter.load(contents.adapter, run.model)
    assert tensors is not None
    run.strategy.load(run.model, tensors, run.world, next(run.model.parameters()).dtype)
    run.strategy.load_optimizer(run.model, run.optimizer, contents.optimizer_state())
    state = contents.state
    run.progress = Progress(**state["progress"])
    run.job.method.restore(run, state["method"])
    events.restore(run, state["listeners"])
    return _restore_rng(run, state["rng"])


def _restore_rng(run: Run, states: list[dict[str, Any]]) -> list[str]:
    if len(states) == run.world.size:
        return restore_rng(states[run.world.rank])
    return [f"the checkpoint was written by {len(states)} processes, here are {run.world.size}: dropout starts anew"]
