"""A run: the live objects that ``assemble`` made and ``Trainer`` drives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.contracts.strategy import Strategy, World
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import Example
from ptsdk.nn.causal_lm import CausalLM

if TYPE_CHECKING:
    from ptsdk.job.job import Job


@dataclass
class Progress:
    """How far a run is; all of it is stored in checkpoints.

    ``epoch`` and ``offset`` are the cursor into the sample order: ``offset`` items of that epoch
    have been consumed, over all processes.
    """

    step: int = 0
    epoch: int = 0
    offset: int = 0
    tokens_total: int = 0


class Plan(Protocol):
    """Which examples each optimizer step reads on this process (see ``data.order``)."""

    def steps(self, progress: Progress) -> Iterator[list[list[int]]]:
        """From the cursor on: for each step, micro-batches of example indices. Advances the
        cursor of ``progress`` when the *next* step is asked for."""
        ...

    def epochs_done(self, progress: Progress) -> float:
        """The cursor in epochs, for people: 1.5 is half way through the second."""
        ...


@dataclass
class Run:
    """Everything alive during a run, in the order it was made."""

    job: Job
    world: World
    tokenizer: Tokenizer
    checkpoint: Checkpoint | None
    """What the model was loaded from; None for a model from scratch."""
    config: dict[str, Any]
    """The keys of config.json that built the model."""
    model: CausalLM
    optimizer: torch.optim.Optimizer
    total_steps: int
    train_data: Sequence[Example]
    train_plan: Plan
    validation_data: Sequence[Example] = ()
    validation_plan: Sequence[Sequence[int]] = ()
    """Micro-batches of validation examples on this process."""
    reference: CausalLM | None = None
    teacher: CausalLM | None = None
    progress: Progress = field(default_factory=Progress)
    scratch: dict[Any, Any] = field(default_factory=dict)
    """Live state of listeners and methods that is not part of a checkpoint."""

    @property
    def output_dir(self) -> Path:
        """The run directory."""
        return self.job.output_dir

    @property
    def strategy(self) -> Strategy:
        """How the run is spread over processes."""
        return self.job.strategy
