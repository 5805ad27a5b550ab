"""A run: the live objects that ``assemble`` made and ``Trainer`` drives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.contracts.strategy import Strategy, World
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import Example, Examples
from ptsdk.data.order import SamplePlan
from ptsdk.nn.causal_lm import CausalLM

if TYPE_CHECKING:
    from ptsdk.job.job import Job


@dataclass
class Progress:
    """How far a run is; all of it is stored in checkpoints.

    ``epoch`` and ``offset`` are the cursor into the sample order: ``offset`` items of that epoch
    have been handed out, over all processes. ``stopped`` is why a callback ended the run before
    its last step, ``skipped`` how many steps changed no weight (``train.on_nonfinite``).
    """

    step: int = 0
    epoch: int = 0
    offset: int = 0
    tokens_total: int = 0
    stopped: str | None = None
    skipped: int = 0


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
    train_data: Examples
    train_plan: SamplePlan
    validation_data: Sequence[Example] = ()
    validation_plan: Sequence[Sequence[int]] = ()
    """Micro-batches of validation examples on this process."""
    frozen: dict[str, CausalLM] = field(default_factory=dict)
    """Models that do not train, by the name the method gave them."""
    frozen_checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    """What each of them was loaded from, where that is another checkpoint than the policy's."""
    progress: Progress = field(default_factory=Progress)
    scratch: dict[Any, Any] = field(default_factory=dict)
    """Live state of listeners and methods that is not part of a checkpoint."""

    @contextmanager
    def reference(self) -> Iterator[CausalLM]:
        """The policy training started from, as it serves: no gradient, no dropout, no random number
        drawn. A frozen copy, or the model with its adapter off."""
        with torch.no_grad():
            if "reference" in self.frozen:
                yield self.frozen["reference"]
            else:
                with self.job.adapter.disabled(self.model), serving(self.model):
                    yield self.model

    @property
    def base_model(self) -> str | None:
        """What an adapter of this run belongs to, as it is found from any folder: a URL, or an absolute
        path; None for a model from scratch."""
        path = self.job.model.path
        return path if path is None or "://" in path else str(self.job.base.absolute() / Path(path).expanduser())

    @property
    def output_dir(self) -> Path:
        """The run directory."""
        return self.job.output_dir

    @property
    def strategy(self) -> Strategy:
        """How the run is spread over processes."""
        return self.job.strategy


@contextmanager
def serving(model: CausalLM) -> Iterator[None]:
    """Inside, ``model`` is in eval mode; afterwards in the mode it was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
