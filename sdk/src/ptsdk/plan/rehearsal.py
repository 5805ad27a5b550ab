"""A job's step, on tensors without data: what is alive, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.checkpoint.weights import resolve_dtype, stored_shape
from ptsdk.contracts.run import Run
from ptsdk.contracts.strategy import World
from ptsdk.job.job import Job
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.sharded import is_sharded
from ptsdk.plan.meter import Segment, held_bytes
from ptsdk.plan.shadows import Shadows
from ptsdk.plan.workload import Workload
from ptsdk.train.assemble import build_optimizer, shape_policy
from ptsdk.train.events import RunEventBus
from ptsdk.train.frozen import Opened, shape_frozen
from ptsdk.train.memory import checkpoint_activations
from ptsdk.train.offloading import offload_inputs
from ptsdk.train.saving import Saver
from ptsdk.train.tally import Tally
from ptsdk.train.trainer import Trainer

CPU = torch.device("cpu")
AWAY = saved_tensors_hooks(
    lambda tensor: (tensor.shape, tensor.dtype), lambda kept: torch.empty(kept[0], dtype=kept[1])
)
"""The memory of a host, which is not counted."""


@dataclass(frozen=True)
class Models:
    """What a job builds: the policy, and what the method wants beside it."""

    policy: Opened
    others: Mapping[str, Opened]


@dataclass(frozen=True)
class Held:
    """What one process holds whatever it reads: of no step can the peak be below the bytes of these together.

    Attributes:
        parameters, trainable: weights of the policy by their number, over all processes; of packed ones
            those that a checkpoint would hold.
        weights, gradients, optimizer: bytes; gradients as many as are alive together.
        saved: bytes of what trains and of the optimizer, whole: what a checkpoint is written from.
    """

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    saved: int

    @property
    def held(self) -> int:
        """Bytes that are alive together while weights are updated."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Trace(Held):
    """What one process held in a step.

    Attributes:
        documents, tokens: of the largest micro-batch.
        segments: peaks of the step, between the marks that blocks leave.
    """

    documents: int
    tokens: int
    segments: tuple[Segment, ...]

    @property
    def total(self) -> int:
        """The peak."""
        return max(segment.peak for segment in self.segments)

    @property
    def before_backward(self) -> int:
        """The peak of what comes before the first gradient, but for the last block: nothing is updated
        there, so another optimizer changes it by its state alone."""
        labels = [segment.label[0] for segment in self.segments]
        end = labels.index("backward") - 1 if "backward" in labels else 0
        return max((segment.peak for segment in self.segments[:end]), default=0)


def rehearse(job: Job, models: Models, workload: Workload, world: World) -> Trace:
    """Take one optimizer step of ``job`` with the optimizer's state already there, as from the second
    step on. What the run reads from checkpoints and data is made up."""
    with _staged(job, models, workload, world) as stage:
        run, meter = stage.run, stage.meter
        trainer = _Marking(run, meter)
        meter.restart()
        train = job.train
        checkpoint_activations(run.model, train.activation_checkpointing, train.activation_checkpointing_every)
        if train.activation_offloading:
            offload_inputs(run.model, train.activation_checkpointing_every, AWAY)
        with marked(meter, {"policy": run.model, **run.frozen}):
            batches = job.method.rehearse(run)
            trainer.step(batches)
    largest = max(batches, key=lambda batch: len(batch.tokens))
    return Trace(
        **asdict(stage.held),
        documents=len(largest.seq_lens),
        tokens=len(largest.tokens),
        segments=tuple(meter.segments),
    )


def hold(job: Job, models: Models, workload: Workload, world: World) -> Held:
    """What a step of ``job`` would find, without taking it."""
    with _staged(job, models, workload, world) as stage:
        return stage.held


@dataclass(frozen=True)
class _Stage:
    run: Run
    meter: Shadows
    held: Held


@contextmanager
def _staged(job: Job, models: Models, workload: Workload, world: World) -> Iterator[_Stage]:
    """A run between two steps; inside, nothing has data."""
    policy = shaped(job, models.policy, workload, world)
    frozen = {
        name: shape_frozen(job, other, world, resolve_dtype(other.family.dtype, workload.device))
        for name, other in models.others.items()
    }
    with Shadows() as meter, torch.compiler.set_stance("force_eager"):
        for model in (policy, *frozen.values()):
            model.to_empty(device=CPU)
        run = _run(job, models, workload, world, policy, {name: model.eval() for name, model in frozen.items()})
        held = _held(run)
        run.optimizer.zero_grad(set_to_none=True)
        yield _Stage(run, meter, held)


def _held(run: Run) -> Held:
    """Of a run whose optimizer has its state once this returns; gradients stay."""
    trained = _with_state(run)
    gradients = [held_bytes([p.grad]) for p in trained if p.grad is not None]
    return Held(
        *_counted(run.model),
        weights=held_bytes(tensor for model in (run.model, *run.frozen.values()) for tensor in _tensors(model)),
        gradients=(max if run.job.train.optimizer_in_backward else sum)(gradients),
        optimizer=held_bytes(_state(run.optimizer)),
        saved=held_bytes(whole(tensor) for tensor in (*trained, *_state(run.optimizer))),
    )


class _Marking(Trainer):
    """The trainer, with a mark where gradients are complete and one where the optimizer begins."""

    def __init__(self, run: Run, meter: Shadows) -> None:
        super().__init__(run, RunEventBus([]), Saver(RunDir(Path()), run.job.train, CPU))
        self._meter = meter
        run.optimizer.register_step_pre_hook(lambda *_: meter.mark("update"))

    def _backward(self, batch: Batch, tally: Tally) -> None:
        super()._backward(batch, tally)
        self._meter.mark("accumulated")


def shaped(job: Job, policy: Opened, workload: Workload, world: World) -> CausalLM:
    """The policy on the meta device."""
    return shape_policy(job, policy, world, resolve_dtype(job.model.dtype, workload.device))


def _run(
    job: Job, models: Models, workload: Workload, world: World, policy: CausalLM, frozen: dict[str, CausalLM]
) -> Run:
    trains = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    return Run(
        job=job,
        world=world,
        tokenizer=workload.tokenizer,
        checkpoint=models.policy.checkpoint,
        config=models.policy.config,
        model=policy,
        optimizer=build_optimizer(job, trains),
        total_steps=job.train.steps or workload.plan(job, world).total_steps,
        train_data=workload.examples,
        train_plan=workload.plan(job, world),
        frozen=frozen,
    )


def _with_state(run: Run) -> list[nn.Parameter]:
    """Take a step on gradients of nothing, so that the optimizer has its state; they stay."""
    trained = [p for p in run.model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    run.optimizer.step()
    return trained


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _state(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for entry in optimizer.state.values():
        yield from (value for value in entry.values() if isinstance(value, Tensor))


def whole(tensor: Tensor) -> Tensor:
    """One like ``tensor``, of all its shards."""
    return torch.empty(tensor.shape, dtype=tensor.dtype) if is_sharded(tensor) else tensor


def _counted(policy: CausalLM) -> tuple[int, int]:
    sizes = [(stored_shape(policy, name).numel(), p.requires_grad) for name, p in policy.named_parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


@contextmanager
def marked(meter: Shadows, models: Mapping[str, CausalLM]) -> Iterator[None]:
    """Inside, each block marks where its forward begins and where its backward is over."""
    hooks = [
        block.register_forward_pre_hook(_marker(meter, name, index))
        for name, model in models.items()
        for index, block in enumerate(model.layers)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _marker(meter: Shadows, name: str, index: int) -> Any:
    def entered(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        meter.mark("forward", name, index)
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda _: meter.mark("backward", name, index))

    return entered
