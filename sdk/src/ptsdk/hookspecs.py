"""The hooks. ``Contributions`` are asked once a process; ``RunEvents`` are told what a run does.

The two never mix: contributions are module-level functions of a dist's ``plugin.py``; run events
are methods of the loggers and callbacks that a job names, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from ptsdk.specs import (
    CheckpointFormatSpec,
    CheckpointSourceSpec,
    DatasetSpec,
    LossSpec,
    MethodSpec,
    ModelFamilySpec,
    Spec,
)

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run

hookspec = pluggy.HookspecMarker("ptsdk")
hookimpl = pluggy.HookimplMarker("ptsdk")


class Contributions:
    """What a dist provides. Each hook is pure and returns an iterable of specs."""

    @hookspec
    def ptsdk_model_families(self) -> Iterable[ModelFamilySpec]:  # type: ignore[empty-body]
        """Model families, found for a checkpoint by ``architectures`` in its config.json."""

    @hookspec
    def ptsdk_tokenizers(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """Ways to obtain a tokenizer."""

    @hookspec
    def ptsdk_datasets(self) -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
        """Data set formats: rows in, examples of an objective out."""

    @hookspec
    def ptsdk_methods(self) -> Iterable[MethodSpec]:  # type: ignore[empty-body]
        """Training methods: a generator of batches and what is minimised on them."""

    @hookspec
    def ptsdk_losses(self) -> Iterable[LossSpec]:  # type: ignore[empty-body]
        """Losses, called by a method of the same objective."""

    @hookspec
    def ptsdk_adapters(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """Which weights train and how they are stored: full, LoRA, ..."""

    @hookspec
    def ptsdk_quantizers(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """How frozen or trained weights are held in fewer bits."""

    @hookspec
    def ptsdk_optimizers(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """Optimizers."""

    @hookspec
    def ptsdk_schedules(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """Learning-rate schedules."""

    @hookspec
    def ptsdk_strategies(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """How a run is spread over processes and devices."""

    @hookspec
    def ptsdk_loggers(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """Where metrics go."""

    @hookspec
    def ptsdk_callbacks(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """What watches a run and may stop it."""

    @hookspec
    def ptsdk_rewards(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """Scores of completions, for methods that roll out."""

    @hookspec
    def ptsdk_checkpoint_sources(self) -> Iterable[CheckpointSourceSpec]:  # type: ignore[empty-body]
        """URL schemes that checkpoints are fetched from."""

    @hookspec
    def ptsdk_checkpoint_formats(self) -> Iterable[CheckpointFormatSpec]:  # type: ignore[empty-body]
        """File formats that checkpoints are read from."""

    @hookspec
    def ptsdk_rollout_engines(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """What generates completions for a policy method."""

    @hookspec
    def ptsdk_commands(self) -> Iterable[Spec]:  # type: ignore[empty-body]
        """Verbs of the ``ptsdk`` command line."""


class RunEvents:
    """What a run tells its loggers and callbacks, in order, on the main process alone."""

    @hookspec
    def run_start(self, run: Run) -> None:
        """Everything is assembled; nothing has been trained."""

    @hookspec
    def model_ready(self, run: Run) -> None:
        """Weights are loaded (and restored, on resume)."""

    @hookspec
    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """An optimizer step ended; ``metrics`` are host floats, the row of metrics.jsonl."""

    @hookspec
    def validation(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """A pass over the validation data ended."""

    @hookspec
    def checkpoint(self, run: Run, step: int, path: Path) -> None:
        """The checkpoint of ``step`` is complete on disk; with ``train.async_save``, some steps later."""

    @hookspec
    def run_end(self, run: Run, error: BaseException | None) -> None:
        """The run is over; ``error`` is what ended it, None when it finished."""

    @hookspec(firstresult=True)
    def should_stop(self, run: Run, step: int, metrics: Mapping[str, float]) -> str | None:
        """A reason to stop after this step, or None. Asked after ``step`` and ``validation``."""
