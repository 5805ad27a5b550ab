"""From a job to a run. The only place that knows in which order things are made."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ptsdk.checkpoint.lock import what_runs
from ptsdk.checkpoint.weights import base_tensors, build_on_meta, resolve_dtype
from ptsdk.contracts.run import Run
from ptsdk.contracts.strategy import World
from ptsdk.data.order import SamplePlan, validation_batches
from ptsdk.data.pipeline import EncodedData, check_vocabulary
from ptsdk.data.report import DataReport
from ptsdk.data.stream import Stream
from ptsdk.data.stream_order import StreamPlan
from ptsdk.errors import Problem, UserError
from ptsdk.job.job import Job
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.registry import Registry
from ptsdk.train.agreement import refuse_disagreement
from ptsdk.train.compiling import compile_blocks, compile_loss, compile_step, refuse_compiling
from ptsdk.train.frozen import Opened, build_frozen, give_attention, open_frozen, open_model
from ptsdk.train.in_backward import one_each
from ptsdk.train.memory import checkpoint_activations, give_back_freed, give_back_holes
from ptsdk.train.offloading import host_memory, offload_inputs
from ptsdk.train.reading import open_stream, read_data


def assemble(job: Job, registry: Registry) -> Run:
    """Everything a run needs, alive and on its device. Writes nothing.

    Raises:
        UserError: the job cannot be run: its data, its checkpoint, or what they add up to.
    """
    world = job.strategy.setup()
    refuse_disagreement(job.strategy, what_runs(job, job.resolved()))
    refuse_offloading(job, world.device)
    refuse_compiling(job, world.device)
    policy = open_model(job.model, job, registry)
    check_exportable(policy.config)
    tokenizer = job.tokenizer.load(policy.checkpoint, job.base)
    others = open_frozen(job, registry, tokenizer, policy)
    train = open_stream(job, tokenizer) if job.data.streaming else read_data(job, job.data.train, tokenizer)
    validation = read_data(job, job.data.validation, tokenizer) if job.data.validation else None
    if not job.data.streaming:
        tokenizer.release()
        give_back_freed()

    seed_everything(job.train.seed, world.rank)
    model = build_policy(job, policy, world)
    frozen = {name: build_frozen(job, other, world) for name, other in others.items()}
    if job.train.compile.loss:
        for one in (model, *frozen.values()):
            compile_loss(one)
    for key, data in (("data.train", train), ("data.validation", validation)):
        if data:
            refuse_unknown_ids(data, model.vocab_size)
            if isinstance(data, EncodedData):
                tell_losses(key, data.report, world)

    optimizer = build_optimizer(job, {n: p for n, p in model.named_parameters() if p.requires_grad})
    if job.train.compile.optimizer:
        compile_step(optimizer)
    plan = training_plan(job, train, world)
    return Run(
        job=job,
        world=world,
        tokenizer=tokenizer,
        checkpoint=policy.checkpoint,
        config=policy.config,
        model=model,
        optimizer=optimizer,
        total_steps=job.train.steps or plan.total_steps * job.method.updates_per_batch,
        train_data=train if isinstance(train, Stream) else train.store,
        train_plan=plan,
        validation_data=validation.store if validation else (),
        validation_plan=validation_plan(job, validation, world) if validation else (),
        frozen=frozen,
        frozen_checkpoints={
            name: other.checkpoint for name, other in others.items() if other.checkpoint and other is not policy
        },
    )


def tell_losses(key: str, report: DataReport, world: World) -> None:
    """Say on stderr, once for all processes, which rows of the data at ``key`` are not what is trained on."""
    for line in report.losses() if world.is_main else ():
        print(f"ptsdk: {key}: {line}", file=sys.stderr, flush=True)


def check_exportable(config: Mapping[str, Any]) -> None:
    """Refuse at once what could not be written at the end.

    Raises:
        UserError: config.json does not say what the model is.
    """
    for key in ("architectures", "model_type"):
        if not config.get(key):
            message = f"its config.json lacks `{key}`, without which nothing loads what is trained"
            raise UserError(Problem(message, "add the key, as the checkpoint it came from has it", path="model.path"))


def refuse_offloading(job: Job, device: torch.device) -> None:
    """Raise a UserError where activations are to leave a device for the place they are in already."""
    if job.train.activation_offloading and device.type == "cpu":
        raise UserError(
            Problem("there is nothing to offload from on a CPU", "leave it out", path="train.activation_offloading")
        )


def build_policy(job: Job, policy: Opened, world: World) -> CausalLM:
    """The policy: built without storage, changed by quantizer, adapter and strategy, then loaded."""
    dtype = resolve_dtype(job.model.dtype, world.device)
    model = shape_policy(job, policy, world, dtype)
    give_attention(model, policy, world.device, dtype)
    names = [name for name, _ in model.named_parameters() if not job.adapter.own(name)]
    base = base_tensors(model, names, policy.checkpoint, job.train.seed, policy.place)
    job.strategy.load(model, base, world, dtype)
    job.adapter.init(model, job.train.seed)
    checkpoint_activations(model, job.train.activation_checkpointing, job.train.activation_checkpointing_every)
    if job.train.compile.model:
        compile_blocks(model)
    if job.train.activation_offloading:
        offload_inputs(model, job.train.activation_checkpointing_every, host_memory())
    give_back_holes(model)
    return model


def shape_policy(job: Job, policy: Opened, world: World, dtype: torch.dtype) -> CausalLM:
    """The policy before it has storage: every parameter in the shape and dtype it will be held in."""
    model = build_on_meta(job.model, policy.config, dtype)
    if job.quantizer:
        job.quantizer.prepare(model)
    job.adapter.apply(model)
    return job.strategy.wrap(model, world)


def build_optimizer(job: Job, parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    """The job's optimizer of what trains; one a parameter where it steps in the backward."""
    return one_each(job.optimizer, parameters) if job.train.optimizer_in_backward else job.optimizer.build(parameters)


def sample_plan(job: Job, lengths: NDArray[np.integer], sizes: Sequence[int], world: World) -> SamplePlan:
    """Which examples each step of this process reads, of data sets of ``sizes`` examples, ``lengths`` in all."""
    return SamplePlan(lengths=lengths, sizes=sizes, epochs=job.train.epochs, **_order(job, world))


def training_plan(job: Job, data: EncodedData | Stream, world: World) -> SamplePlan:
    """The same of data that is there, or becomes examples when a step reads it."""
    if isinstance(data, Stream):
        return StreamPlan(data, **_order(job, world))
    return sample_plan(job, data.store.lengths, data.sizes, world)


def refuse_unknown_ids(data: EncodedData | Stream, vocab_size: int) -> None:
    """Raise a UserError for an id that the model has no embedding for: of a stream, when it is read."""
    if isinstance(data, Stream):
        data.vocab_size = vocab_size
    else:
        check_vocabulary(data.store, vocab_size)


def _order(job: Job, world: World) -> dict[str, Any]:
    """What of a job decides the order of its data, and who reads it."""
    return {
        "weights": [dataset.weight for dataset in job.data.train],
        "seed": job.train.seed,
        "shuffle": job.data.shuffle,
        "packing": job.data.packing,
        "capacity": job.data.max_length,
        "batch_size": job.method.items_per_step(job.train.batch_size),
        "cut": job.train.cut,
        "rank": world.rank,
        "world_size": world.size,
        "steps": job.train.steps,
    }


def validation_plan(job: Job, data: EncodedData, world: World) -> list[list[int]]:
    """Micro-batches of the validation data on this process, every row once."""
    return validation_batches(data.store.lengths.tolist(), job.train.cut, world.rank, world.size)


def seed_everything(seed: int, rank: int) -> None:
    """Seed Python, numpy and torch; what they draw (dropout) differs between processes. Fix the threads."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)
    # As many threads as there are, but for good: MKL takes fewer on a busy machine unless it is told, and a sum
    # of other parts rounds otherwise.
    torch.set_num_threads(torch.get_num_threads())
