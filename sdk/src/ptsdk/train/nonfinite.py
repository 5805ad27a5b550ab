"""A loss or gradient that is not finite: which module it came from, and which rows.

Nothing watches a healthy step. When one has failed, its micro-batches go through the model again,
forward and backward, with hooks on every module; the first that makes something not finite of what
was finite is named.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptsdk.contracts.run import Run
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import eager

SHOWN = 8
"""Rows named at most."""


@dataclass(frozen=True)
class Origin:
    """Where something was first not finite.

    Attributes:
        what: in the words of a message.
        rows: ``file:line`` of each example of the micro-batch.
        doubt: 0 for a forward, 1 for a gradient on its way, 2 for one that has arrived at a weight, where
            processes have added theirs already, 3 where nothing is known but the rows of the step.
    """

    what: str
    rows: tuple[str, ...]
    doubt: int

    def __str__(self) -> str:
        more = f" and {len(self.rows) - SHOWN} more" if len(self.rows) > SHOWN else ""
        rows = ", ".join(self.rows[:SHOWN]) or "rows that the method does not tell"
        return f"{self.what}\n    with {rows}{more}"


def trace(run: Run, micro_batches: Sequence[Batch], *, again: bool = True) -> Origin:
    """The origin on any process, found by going through the step once more; called by all.

    Leaves no gradient behind, and draws no random number that the run would have drawn.

    Args:
        micro_batches: of this process in the step that failed.
        again: False where the weights are not those of the step any more: only its rows are told.
    """
    devices = [run.world.device] if run.world.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        # All of them, whatever is found: the other processes go through as many.
        found = [_trace(run, batch.to(run.world.device)) for batch in micro_batches] if again else []
    rows = [place for batch in micro_batches if batch.live for place in _places(run, batch)]
    everyones = run.strategy.collect((found, rows))
    origins = [origin for found, _ in everyones for origin in found if origin]
    unknown = Origin("where it began does not show", tuple(place for _, rows in everyones for place in rows), 3)
    return min(origins, key=lambda origin: origin.doubt, default=unknown)


def _places(run: Run, batch: Batch) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.train_data.place(row) for row in batch.rows))


def _trace(run: Run, batch: Batch) -> Origin | None:
    run.model.zero_grad(set_to_none=True)
    with eager(run.model), watched({"": run.model, **run.frozen}) as seen:
        output = run.job.method.loss(run, batch)
        sound = finite(output.sum)
        (output.sum if batch.live else output.sum * 0).backward()  # type: ignore[no-untyped-call]
    places = _places(run, batch)
    origin = _of_gradients(run.model, seen, places) if sound else _of_forward(run.model, seen, places)
    run.model.zero_grad(set_to_none=True)
    return origin if batch.live else None


def _of_forward(model: nn.Module, seen: Seen, places: tuple[str, ...]) -> Origin:
    return Origin(f"first in {seen.made or _bad_weight(model) or 'the loss itself'}", places, 0)


def _of_gradients(model: nn.Module, seen: Seen, places: tuple[str, ...]) -> Origin | None:
    """What is wrong after a sound forward; a later module comes first."""
    if seen.passed:
        return Origin(f"first in the gradient that leaves {seen.passed}", places, 1)
    if seen.arrived:
        return Origin(f"first in the gradient that reaches {seen.arrived}", places, 1)
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not finite(p.grad)]
    return Origin(f"first in the gradient of {bad[-1]}", places, 2) if bad else None


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
def watched(models: Mapping[str, nn.Module]) -> Iterator[Seen]:
    """Inside, every module of ``models`` is looked at as it works. What is found has the model's key in front."""
    seen = Seen()
    hooks = [
        module.register_forward_hook(functools.partial(_look, seen, name))
        for key, model in models.items()
        for name, module in model.named_modules(prefix=key)
    ]
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
