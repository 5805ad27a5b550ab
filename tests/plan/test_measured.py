"""What a plan says, beside what a real run of the same job holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ptsdk.plan.depth import traced
from ptsdk.plan.processes import pretended
from ptsdk.plan.rehearsal import rehearse
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from tests.plan.jobs import JOBS, job_of, measured, opened

CHEAP = ["sft", "sft-full-checkpointing", "sft-selective-checkpointing", "sft-offloading", "sft-in-backward",
         "lora", "qlora-nf4", "dpo-lora", "kd", "grpo"]  # fmt: skip


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(scan())


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in CHEAP else pytest.mark.slow) for name in JOBS])
def test_a_plan_is_what_a_run_holds(name: str, registry: Registry, tmp_path: Path) -> None:
    job = job_of(tmp_path, registry, JOBS[name])
    with pretended(1):
        plan = rehearse(job, *opened(job, registry), job.strategy.setup())
    peak, state = measured(job, registry)
    assert plan.optimizer == state
    # The largest micro-batch that begins a step and the largest that adds to it seldom meet in a short run.
    assert peak <= plan.total * 1.001 and plan.total <= peak * 1.05


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        pytest.param("sft", 1, marks=pytest.mark.slow),
        pytest.param("qlora-nf4", 1, marks=pytest.mark.slow),
        ("sft-offloading", 2),
    ],
)
def test_a_deep_model_is_what_two_shallow_ones_say(
    name: str, processes: int, registry: Registry, tmp_path: Path
) -> None:
    deep = {**JOBS[name], "strategy": "fsdp2" if processes > 1 else "single"}
    job = job_of(tmp_path, registry, deep)
    family = job.model.model_copy(update={"config": {**(job.model.config or {}), "num_hidden_layers": 20}})
    job = job.model_copy(update={"model": family})
    with pretended(processes):
        world = job.strategy.setup()
        models, workload = opened(job, registry)
        whole = rehearse(job, models, workload, world)
        quick = traced(job, models, workload, world)
    assert len(quick.segments) < len(whole.segments), "the whole model was traced"
    assert quick.total == whole.total
    for count in ("parameters", "trainable", "weights", "gradients", "optimizer"):
        assert getattr(quick, count) == getattr(whole, count)


def test_sgd_steps_on_shards(registry: Registry, tmp_path: Path) -> None:
    job = job_of(tmp_path, registry, JOBS["sft-sgd"], strategy="fsdp2")
    with pretended(2):
        plan = rehearse(job, *opened(job, registry), job.strategy.setup())
    assert plan.optimizer == plan.weights == plan.gradients


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "qlora-nf4", "dpo"])
def test_one_of_two_processes_holds_what_was_planned(name: str, registry: Registry, tmp_path: Path) -> None:
    job = job_of(tmp_path, registry, JOBS[name], strategy="fsdp2")
    with pretended(2):
        plan = rehearse(job, *opened(job, registry), job.strategy.setup())
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    others = [context.Process(target=_rank, args=(rank, name, tmp_path, queue)) for rank in range(2)]
    for process in others:
        process.start()
    peaks = [queue.get(timeout=120) for _ in others]
    for process in others:
        process.join()
    assert max(peaks) <= plan.total * 1.001 and plan.total <= max(peaks) * 1.05


def _rank(rank: int, name: str, folder: Path, queue: object) -> None:
    import os

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    os.environ["MASTER_PORT"] = "29713"
    registry = Registry(scan())
    mine = folder / str(rank)
    mine.mkdir()
    peak = measured(job_of(mine, registry, JOBS[name], strategy="fsdp2"), registry)[0]
    queue.put(peak)  # type: ignore[attr-defined]
