"""What one process of a job will hold, and of changed forms of the job."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ptsdk.contracts.strategy import World
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.job import load_job
from ptsdk.job.job import Job
from ptsdk.plan.depth import held, traced
from ptsdk.plan.processes import pretended
from ptsdk.plan.rehearsal import CPU, Held, Models, Trace
from ptsdk.plan.workload import Workload, workload_of
from ptsdk.registry import Registry
from ptsdk.train.frozen import open_frozen, open_model
from ptsdk.train.saving import saves_aside

NOT_SEEN = {
    "compile": "blocks are counted as they run uncompiled; what compiled code holds is not seen",
}
"""Options of ``train`` that a rehearsal leaves out."""
OFFLOADED = (
    "offloading is counted as on an accelerator, what is on the host not; on a CPU, as here, `ptsdk run` refuses it"
)


@dataclass(frozen=True)
class Plan:
    """The memory of one process.

    Attributes:
        trace: what was counted.
        processes: how many the run is spread over.
        from_data: whether lengths are those of the data, else ``data.max_length`` is assumed.
        copy: bytes that a checkpoint is written from while training goes on, where they are in the same memory.
        notes: what was not taken into account.
    """

    trace: Trace
    processes: int
    from_data: bool
    copy: int = 0
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Bytes of tensors alive at the peak of a step."""
        return self.trace.total + self.copy

    def bytes(self) -> dict[str, int]:
        """``{weights, gradients, optimizer, activations, total}``. Activations are what the peak of a step is
        above the other three; ``checkpoint`` is there where ``copy`` is."""
        trace = self.trace
        activations = trace.total - trace.weights - trace.gradients - trace.optimizer
        kept = {"weights": trace.weights, "gradients": trace.gradients, "optimizer": trace.optimizer}
        copy = {"checkpoint": self.copy} if self.copy else {}
        return {**kept, "activations": activations, **copy, "total": self.total}

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "parameters": self.trace.parameters,
            "trainable_parameters": self.trace.trainable,
            "bytes": self.bytes(),
            "per_rank": True,
            "processes": self.processes,
            "batch": {"documents": self.trace.documents, "tokens": self.trace.tokens, "from_data": self.from_data},
            "notes": list(self.notes),
        }


class Setting(NamedTuple):
    """What a job is rehearsed with."""

    models: Models
    workload: Workload
    world: World


class Planner:
    """Plans a job file, and the same file with further overrides, which change neither tokens nor data.

    Args:
        path: the job.
        overrides: as on the command line.
        registry: what is installed.
        processes: how many the run is spread over.
        length: tokens of every document (or pack), whatever the data; None looks at the data where it is
            small and local, and else assumes ``data.max_length``.
    """

    def __init__(
        self,
        path: Path,
        overrides: tuple[str, ...],
        registry: Registry,
        *,
        processes: int = 1,
        length: int | None = None,
    ) -> None:
        self.path, self.registry, self.processes, self.length = path, registry, processes, length
        self.overrides = overrides if length is None else (*overrides, f"data.max_length={length}")
        self.job = self.changed()
        self._tokenizer: Tokenizer | None = None
        self._workload: Workload | None = None
        self._held: dict[tuple[str, ...], Held] = {}
        self._plans: dict[tuple[tuple[str, ...], int], Plan] = {}

    def changed(self, *overrides: str) -> Job:
        """The job with ``overrides`` after its own.

        Raises:
            UserError: every fault, as ``ptsdk check`` tells it.
        """
        return load_job(self.path, [*self.overrides, *overrides], self.registry)

    def plan(self, *overrides: str, processes: int | None = None) -> Plan:
        """The plan of the job changed so, in as many processes.

        Raises:
            UserError: there is no such job, or its models or data cannot be used.
        """
        size = processes or self.processes
        if (overrides, size) not in self._plans:
            with self._set_up(overrides, size) as (job, setting):
                notes = tuple(note for option, note in NOT_SEEN.items() if getattr(job.train, option))
                trace, device = traced(job, *setting), setting.workload.device
                if job.train.activation_offloading and device.type == "cpu":
                    notes = (*notes, OFFLOADED)
                copied = job.train.save_every and saves_aside(job.train, device) and device.type == "cpu"
                copy = trace.saved if copied else 0
                self._plans[overrides, size] = Plan(trace, size, setting.workload.from_data, copy, notes)
        return self._plans[overrides, size]

    @functools.cached_property
    def device(self) -> torch.device:
        """Where the run will be."""
        with self.job.placing(), pretended(self.processes):
            return self.job.strategy.setup().device

    def held(self, *overrides: str) -> Held:
        """What the job changed so holds whatever it reads; much sooner told than a plan.

        Raises:
            UserError: as ``plan``.
        """
        if overrides not in self._held:
            with self._set_up(overrides, self.processes) as (job, setting):
                self._held[overrides] = held(job, *setting)
        return self._held[overrides]

    @contextmanager
    def _set_up(self, overrides: tuple[str, ...], size: int) -> Iterator[tuple[Job, Setting]]:
        job = self.changed(*overrides) if overrides else self.job
        with job.placing(), pretended(size):
            world = job.strategy.setup()
            policy = open_model(job.model, job, self.registry, weights=False)
            self._tokenizer = self._tokenizer or job.tokenizer.load(policy.checkpoint, job.base)
            others = open_frozen(job, self.registry, self._tokenizer, policy, weights=False)
            self._workload = self._workload or workload_of(job, self._tokenizer, world.device, read=self.length is None)
            yield job, Setting(Models(policy, others), self._workload, replace(world, device=CPU))
