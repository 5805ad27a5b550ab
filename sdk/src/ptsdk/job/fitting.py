"""Whether the parts of a sound job fit together, tried on the meta device: no weight is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ptsdk.checkpoint.weights import build_on_meta, resolve_dtype
from ptsdk.errors import PtsdkError, UserError
from ptsdk.job.job import Job
from ptsdk.job.source import Keys
from ptsdk.job.wording import Fault
from ptsdk.nn.attention.choice import Unavailable, choose
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.registry import devices

CPU = torch.device("cpu")


def misfits(job: Job, config: Mapping[str, Any]) -> Iterator[Fault]:
    """What components refuse of each other when a run puts them together, found before it does.

    Args:
        job: sound by all that specs and options tell.
        config: config.json of its model.
    """
    yield from _devices(job)
    yield from _refused(job, ("method", "loss"), lambda: job.method.frozen_models(job))
    model = _model(job, config)
    yield from _attention(job, model)
    yield from _blocks(job, model)
    if job.quantizer:
        prepare = job.quantizer.prepare
        refused = [*_refused(job, ("quantizer", "model"), lambda: prepare(model))]
        yield from refused
        model = _model(job, config) if refused else model  # some of its layers may be swapped
    yield from _refused(job, ("adapter", "model"), lambda: job.adapter.apply(model))


def _devices(job: Job) -> Iterator[Fault]:
    """Components that run on other devices than this job's."""
    here = job.strategy.device_type()
    for place, entry in job.entries.items():
        wanted = devices(entry.spec)
        if wanted and here not in wanted:
            message = f"{entry.kind} {entry.spec.name} needs a {' or '.join(wanted)} device, and this trains on {here}"
            yield Fault(_keys(place), message, "use another, or train where there is such a device")


def _attention(job: Job, model: CausalLM) -> Iterator[Fault]:
    """A backend that cannot run here; of a device that this machine lacks nothing can be told."""
    device = torch.device(job.strategy.device_type())
    if device.type == "cuda" and not torch.cuda.is_available():
        return
    try:
        choose(job.model.attention, device, resolve_dtype(job.model.dtype, device), model.head_dim)
    except Unavailable as error:
        yield Fault(("model", "attention"), str(error), "leave it out: the best that can run here is chosen")


def _blocks(job: Job, model: CausalLM) -> Iterator[Fault]:
    """A model of fewer blocks than one of so many is to recompute of."""
    every, blocks = job.train.activation_checkpointing_every, len(model.layers)
    if every > blocks:
        message = f"of every {every} blocks the first is to recompute, but the model has {blocks}"
        yield Fault(("train", "activation_checkpointing_every"), message, f"choose a number up to {blocks}")


def _model(job: Job, config: Mapping[str, Any]) -> CausalLM:
    return build_on_meta(job.model, dict(config), resolve_dtype(job.model.dtype, CPU))


def _refused(job: Job, between: tuple[str, str], step: Callable[[], object]) -> Iterator[Fault]:
    """What ``step`` says, with the names of the two components it is between; at the key that it names,
    else at the first of the two."""
    try:
        step()
    except PtsdkError as error:
        who = " with ".join(f"{kind} {job.entries[kind].spec.name}" for kind in between)
        problems = error.problems if isinstance(error, UserError) else ()
        for problem in problems:
            yield Fault(_keys(problem.path) if problem.path else between[:1], f"{who}: {problem.message}", problem.hint)
        if not problems:
            yield Fault(between[:1], f"{who}: {error}")


def _keys(path: str) -> Keys:
    return tuple(int(key) if key.isdecimal() else key for key in path.split("."))
