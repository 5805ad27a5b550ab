"""Deep models from shallow ones: blocks that are alike cost alike.

What is alive at a moment of a step is a sum over blocks, so where all blocks are alike it is a line in
their number. Two depths give the lines, one for each moment: those of the first two blocks and of the
last three of every pass, between which the others lie. The peak of the deep model is the largest of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from torch import nn

from ptsdk.contracts.strategy import World
from ptsdk.job.job import Job
from ptsdk.plan.meter import Segment
from ptsdk.plan.rehearsal import Held, Models, Trace, hold, rehearse, shaped
from ptsdk.plan.workload import Workload

FIRST, LAST = 2, 3
"""Blocks at the ends of a pass that are unlike those between: a strategy gathers ahead, a backward stops early."""
SHALLOW = FIRST + LAST + 1
"""Blocks of the shallower of both models; where nothing below the first one trains, its backward has one less."""
WORTH_IT = 20
"""Blocks from which two shallow models are traced instead of the whole."""
DEPTH = "num_hidden_layers"
"""The key of config.json."""

Run = list[Segment]
"""One pass over the blocks, forward or backward."""


def traced(job: Job, models: Models, workload: Workload, world: World) -> Trace:
    """``rehearse``, without going through every block where all are alike."""
    more = _left_out(job, models, workload, world)
    if not more:
        return rehearse(job, models, workload, world)
    short, long = (rehearse(job, _cut(models, depth), workload, world) for depth in (SHALLOW, SHALLOW + 1))
    return extrapolated(short, long, more) or rehearse(job, models, workload, world)


def held(job: Job, models: Models, workload: Workload, world: World) -> Held:
    """``hold``, of one block and of two where all are alike: no pass has ends here."""
    more = _left_out(job, models, workload, world)
    if not more:
        return hold(job, models, workload, world)
    short, long = (hold(job, _cut(models, depth), workload, world) for depth in (1, 2))
    return Held(**_counts(short, long, more + SHALLOW - 1))


def _left_out(job: Job, models: Models, workload: Workload, world: World) -> int:
    """How many blocks the shallower model does without; 0 where the whole has to be gone through."""
    if job.train.activation_checkpointing_every > 1:
        return 0  # blocks that recompute are not like those that do not
    blocks = shaped(job, models.policy, workload, world).layers
    if len(blocks) < WORTH_IT or models.policy.config.get(DEPTH) != len(blocks) or not alike(blocks):
        return 0
    return len(blocks) - SHALLOW


def alike(blocks: Sequence[nn.Module]) -> bool:
    """Whether all blocks have the same parameters and settings."""
    return len({_signature(block) for block in blocks}) == 1


def _signature(block: nn.Module) -> tuple[Any, ...]:
    parameters = ((name, p.shape, p.dtype, p.requires_grad) for name, p in block.named_parameters())
    settings = (
        (name, type(module), key, value)
        for name, module in block.named_modules()
        for key, value in vars(module).items()
        if key != "layer" and isinstance(value, (bool, int, float, str, type(None)))
    )
    return (*parameters, *settings)


def _cut(models: Models, depth: int) -> Models:
    """The policy, and what is built like it, with so many blocks; other models as they are."""
    policy = models.policy._replace(config={**models.policy.config, DEPTH: depth})
    others = {name: policy if other is models.policy else other for name, other in models.others.items()}
    return Models(policy, others)


def extrapolated(short: Trace, long: Trace, more: int) -> Trace | None:
    """The trace of a model with ``more`` blocks than ``short`` has, ``long`` having one more; None where what
    was measured does not lie on lines."""
    passes = list(zip(runs(short.segments), runs(long.segments), strict=False))
    if not all(is_line(between(run)) for pair in passes for run in pair):
        return None
    segments = [
        Segment(b.label, line(a.peak, b.peak, more))
        for first, second in passes
        for a, b in zip(ends(first), ends(second), strict=True)
    ]
    return replace(short, segments=tuple(segments), **_counts(short, long, more))


def _counts(short: Held, long: Held, more: int) -> dict[str, int]:
    """What is held, continued."""
    names = [field.name for field in fields(Held)]
    return {name: line(getattr(short, name), getattr(long, name), more) for name in names}


def runs(segments: Sequence[Segment]) -> list[Run]:
    """Segments of one pass after another over the blocks of one model."""
    found: list[Run] = []
    for segment in segments:
        if found and _follows(found[-1][-1].label, segment.label):
            found[-1].append(segment)
        else:
            found.append([segment])
    return found


def _follows(before: tuple[Any, ...], label: tuple[Any, ...]) -> bool:
    """Whether ``label`` is the next block of the same pass."""
    step = 1 if label[0] == "forward" else -1
    return before[:2] == label[:2] and len(label) == 3 and label[2] - before[2] == step


def ends(run: Run) -> Run:
    """The first and the last of a pass."""
    return run if len(run) < FIRST + LAST else [*run[:FIRST], *run[-LAST:]]


def between(run: Run) -> Run:
    """The others, with the one at each end that they must be in line with."""
    return run[FIRST - 1 : 1 - LAST]


def is_line(run: Run) -> bool:
    """Whether the peaks grow by the same from block to block."""
    steps = {b.peak - a.peak for a, b in itertools.pairwise(run)}
    return len(steps) <= 1


def line(at_zero: int, at_one: int, at: int) -> int:
    """The line through two values, continued."""
    return at_zero + (at_one - at_zero) * at
