"""What each technique would save of a job's memory, by planning the changed job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ptsdk import hints
from ptsdk.errors import UserError
from ptsdk.job.job import Job
from ptsdk.plan.estimate import Plan, Planner
from ptsdk.registry import Registry


@dataclass(frozen=True)
class Technique:
    """A change of a job that saves memory.

    Attributes:
        axis: what it changes; two of one axis exclude each other.
        name: for people.
        overrides: as for ``ptsdk run``.
        cost: roughly the time a step takes longer, in percent; from 100 on fewer weights train.
        processes: how many it takes; None for as many as before.
        install: the dist that has it, where none is installed.
        elsewhere: whether it takes another machine.
    """

    axis: str
    name: str
    overrides: tuple[str, ...] = ()
    cost: int = 0
    processes: int | None = None
    install: str = ""
    elsewhere: bool = False


@dataclass(frozen=True)
class Rung:
    """A technique and what comes of it: a plan, or why there is none."""

    technique: Technique
    plan: Plan | None = None
    refused: str = ""

    def as_dict(self, before: Plan) -> dict[str, Any]:
        """For ``--json``."""
        technique = self.technique
        told = {"technique": technique.name, "overrides": list(technique.overrides), "processes": technique.processes}
        if self.plan:
            return {**told, "bytes": self.plan.bytes(), "saves": before.total - self.plan.total}
        return {**told, "install": technique.install} if technique.install else {**told, "refused": self.refused}


def ladder(planner: Planner) -> list[Rung]:
    """Every technique that the job does not use yet, each by itself."""
    techniques = techniques_for(planner.job, planner.registry, planner.processes, planner.device)
    return [climbed(planner, technique) for technique in techniques]


def climbed(planner: Planner, technique: Technique) -> Rung:
    """The job with one technique."""
    if technique.install:
        return Rung(technique)
    try:
        return Rung(technique, planner.plan(*technique.overrides, processes=technique.processes))
    except UserError as error:
        return Rung(technique, refused=error.problems[0].message)


def techniques_for(job: Job, registry: Registry, processes: int, device: torch.device) -> Iterator[Technique]:
    """What a job could do, the cheapest first. Components are found by what they say they support."""
    yield from _step(job)
    yield from _state(job, registry)
    yield from _smaller(job, processes)
    yield from _recomputing(job, device)
    if job.model.dtype != "bfloat16":
        yield Technique("dtype", "weights in bfloat16", ("model.dtype=bfloat16",), 10)
    yield from _fewer(job, registry)
    yield from _spread(job, registry, processes)


def _step(job: Job) -> Iterator[Technique]:
    train = job.train
    if not train.optimizer_in_backward:
        overrides = ["train.optimizer_in_backward=true"]
        overrides += ["train.clip_grad_norm=null"] if train.clip_grad_norm is not None else []
        whole = f"train.micro_batch_size={train.batch_size}"
        overrides += [whole] if train.micro_batch_size != train.batch_size else []
        overrides += ["train.micro_batch_tokens=null"] if train.micro_batch_tokens else []
        yield Technique("step", "optimizer in the backward", tuple(overrides), 1)


def _state(job: Job, registry: Registry) -> Iterator[Technique]:
    if "small-state" not in job.entries["optimizer"].spec.supports:
        for rank, (name, technique) in enumerate(_capable(registry, "optimizer", "small-state", "state")):
            yield technique or Technique("state", f"optimizer {name}", (f"optimizer.use={name}",), 3 + 2 * rank)


def _recomputing(job: Job, device: torch.device) -> Iterator[Technique]:
    modes = {"none": ("selective", "full"), "selective": ("full",), "full": ()}
    whole = job.train.activation_checkpointing_every == 1
    of_all = () if whole else ("train.activation_checkpointing_every=1",)
    for mode in modes[job.train.activation_checkpointing] if whole else ("full",):
        cost = {"selective": 8, "full": 30}[mode]
        overrides = (f"train.activation_checkpointing={mode}", *of_all)
        yield Technique("recompute", f"{mode} activation checkpointing", overrides, cost)
    if not job.train.activation_offloading:
        overrides = ("train.activation_checkpointing=full", *of_all, "train.activation_offloading=true")
        name = "full activation checkpointing, offloaded"
        if device.type == "cpu":
            yield Technique("recompute", f"{name} (with an accelerator)", overrides, elsewhere=True)
        else:
            yield Technique("recompute", name, overrides, 40)


def _smaller(job: Job, processes: int) -> Iterator[Technique]:
    """Micro-batches below what a process reads of a batch; by tokens, down to one of the longest document."""
    size, tokens = job.train.micro_batch_size, job.train.micro_batch_tokens
    if size is None:
        assert tokens is not None
        while (tokens := tokens // 2) >= job.data.max_length:
            yield Technique(
                "micro-batch", f"micro-batches of {tokens} tokens", (f"train.micro_batch_tokens={tokens}",), 5
            )
        return
    share = -(-job.train.batch_size // processes)
    for smaller in sorted((n for n in range(1, min(size, share)) if size % n == 0), reverse=True):
        yield Technique("micro-batch", f"micro-batches of {smaller}", (f"train.micro_batch_size={smaller}",), 5)


def _fewer(job: Job, registry: Registry) -> Iterator[Technique]:
    """An adapter, and a packed base under it."""
    adapter: tuple[str, ...] = ()
    label = ""
    if "full" in job.entries["adapter"].spec.supports:
        name, missing = next(_capable(registry, "adapter", "low-rank", "update"))
        if missing:
            yield missing
            return
        adapter, label = (f"adapter={name}",), f"{name} "
        yield Technique("update", f"adapter {name}", adapter, 100)
    if job.quantizer is None:
        for rank, (name, technique) in enumerate(_capable(registry, "quantizer", "packs", "update")):
            overrides = (*adapter, f"quantizer={name}")
            cost = (140 if adapter else 40) + 5 * rank
            yield technique or Technique("update", f"{label}on a {name} base", overrides, cost)


def _spread(job: Job, registry: Registry, processes: int) -> Iterator[Technique]:
    if "sharded" in job.entries["strategy"].spec.supports:
        yield Technique("processes", f"--nproc {2 * processes}", (), 0, 2 * processes)
        return
    name, missing = next(_capable(registry, "strategy", "sharded", "processes"))
    yield missing or Technique("processes", f"strategy {name} --nproc 2", (f"strategy={name}",), 0, 2)


def _capable(registry: Registry, kind: str, capability: str, axis: str) -> Iterator[tuple[str, Technique | None]]:
    """The names of a kind's components that support something; where there are none, who has one."""
    pairs = zip(registry.names(kind), registry.entries(kind), strict=True)
    names = [name for name, entry in pairs if capability in entry.spec.supports]
    yield from ((name, None) for name in names)
    if not names:
        dist = hints.capability_provider(kind, capability) or ""
        yield "", Technique(axis, f"{kind} ({capability})", install=dist)
