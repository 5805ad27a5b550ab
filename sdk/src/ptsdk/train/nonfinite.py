"""A loss or gradient that is not finite: which module it came from, and which rows.

Nothing watches a healthy step. When one has failed, its micro-batches go through the model again,
forward and backward, with hooks on every module; the first that makes something not finite of what
was finite is named.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptsdk.contracts.run import Run
from ptsdk.nn.batch import Batch

SHOWN = 8
"""Rows named at most."""


@dataclass(frozen=True)
class Origin:
    """Where something was first not finite.

    Attributes:
        what: in the words of a message.
        rows: ``file:line`` of each example of the micro-batch.
        doubt: 0 for a forward, 1 for a gradient on its way, 2 for one that has arrived at a weight, where
            processes have added theirs already.
    """

    what: str
    rows: tuple[str, ...]
    doubt: int

    def __str__(self) -> str:
        more = f" and {len(self.rows) - SHOWN} more" if len(self.rows) > SHOWN else ""
        rows = ", ".join(self.rows[:SHOWN]) or "rows that the method does not tell"
        return f"first in {self.what}\n    with {rows}{more}"


def trace(run: Run, micro_batches: Sequence[Batch]) -> Origin | None:
    """The origin on any process, found by going through the step once more; called by all.

    Leaves no gradient behind, and draws no random number that the run would have drawn.

    Args:
        micro_batches: of this process in the step that failed.

    Returns:
        None where nothing fails a second time.
    """
    devices = [run.world.device] if run.world.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # All of them, whatever is found: the other processes go through as many.
        found = [_trace(run, batch.to(run.world.device)) for batch in micro_batches]
    everyones = [origin for own in run.strategy.collect(found) for origin in own if origin]
    return min(everyones, key=lambda origin: origin.doubt, default=None)


def _trace(run: Run, batch: Batch) -> Origin | None:
    run.model.zero_grad(set_to_none=True)
    with watched(run.model) as seen:
        output = run.job.method.loss(run, batch)
        sound = finite(output.sum)
        (output.sum if batch.live else output.sum * 0).backward()  # type: ignore[no-untyped-call]
    places = tuple(dict.fromkeys(run.train_data.place(row) for row in batch.rows))
    origin = _of_gradients(run.model, seen, places) if sound else _of_forward(run.model, seen, places)
    run.model.zero_grad(set_to_none=True)
    return origin if batch.live else None


def _of_forward(model: nn.Module, seen: Seen, places: tuple[str, ...]) -> Origin:
    return Origin(seen.made or _bad_weight(model) or "the loss itself", places, 0)


def _of_gradients(model: nn.Module, seen: Seen, places: tuple[str, ...]) -> Origin | None:
    """What is wrong after a sound forward; a later module comes first."""
    if seen.passed:
        return Origin(f"the gradient that leaves {seen.passed}", places, 1)
    if seen.arrived:
        return Origin(f"the gradient that reaches {seen.arrived}", places, 1)
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not finite(p.grad)]
    return Origin(f"the gradient of {bad[-1]}", places, 2) if bad else None


def _bad_weight(module: nn.Module, prefix: str = "", recurse: bool = True) -> str | None:
    named = module.named_parameters(prefix, recurse=recurse)
    return next((f"{name}: the weight itself is not finite" for name, p in named if not finite(p)), None)


@dataclass
class Seen:
    """What was found first, in the order things happened.

    Attributes:
        made: the output that was not finite, or the weight it was made with.
        passed: the module that a finite gradient entered and another left.
        arrived: the module whose output was the first to get a gradient that was not finite.
    """

    made: str | None = None
    passed: str | None = None
    arrived: str | None = None


@contextmanager
def watched(model: nn.Module) -> Iterator[Seen]:
    """Inside, every module of ``model`` is looked at as it works."""
    seen = Seen()
    hooks = [m.register_forward_hook(functools.partial(_look, seen, name)) for name, m in model.named_modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _look(seen: Seen, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    """After the forward of a module; those inside it were looked at before."""
    made = _floats(output)
    if seen.made is None and not all(map(finite, made)):
        seen.made = _bad_weight(module, name, recurse=False) or f"the output of {name or 'the model'}"
    passage = _Passage(seen, name or "the model")
    for tensors, hook in ((made, passage.enters), (_floats(inputs), passage.leaves)):
        for tensor in tensors:
            if tensor.requires_grad:
                tensor.register_hook(hook)  # type: ignore[no-untyped-call]


@dataclass
class _Passage:
    """The way of a gradient back through one call of a module."""

    seen: Seen
    name: str
    entered_finite: bool = True

    def enters(self, gradient: Tensor) -> None:
        """At the output of the module."""
        if not finite(gradient):
            self.entered_finite = False
            self.seen.arrived = self.seen.arrived or self.name

    def leaves(self, gradient: Tensor) -> None:
        """At an input of it."""
        if self.entered_finite and not finite(gradient):
            self.seen.passed = self.seen.passed or self.name


def _floats(values: Any) -> list[Tensor]:
    several = values if isinstance(values, (tuple, list)) else (values,)
    return [value for value in several if isinstance(value, Tensor) and value.is_floating_point()]


def finite(tensor: Tensor) -> bool:
    """Whether every number is, of the part that this process holds."""
    own = tensor.detach()  # a test that autograd saw would be missing from a recomputed forward
    if hasattr(own, "to_local"):
        own = own.to_local()
    return bool(own.isfinite().all())
