"""Options that save time or memory, in combination: what is trained is the same.

Every two values of two options meet in some run (a pairwise cover), beside a plain run of the same
method and update.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.conftest import WriteJob, metrics
from tests.matrix.test_invariance import assert_same, trained
from tests.plan.jobs import NUMPY

Values = dict[str, dict[str, Any]]
"""For each axis what it adds to its section of the job."""

AXES: dict[str, list[dict[str, Any]]] = {
    "micro": [{"micro_batch_size": 8}, {"micro_batch_size": 2}, {"micro_batch_tokens": 150}],
    "recompute": [
        {"activation_checkpointing": "none"},
        {"activation_checkpointing": "full"},
        {"activation_checkpointing": "selective"},
        {"activation_checkpointing": "full", "activation_checkpointing_every": 2},
        {"activation_checkpointing": "full", "activation_offloading": True},
    ],
    "update": [{"optimizer_in_backward": False}, {"optimizer_in_backward": True}],
    "save": [{"async_save": False}, {"async_save": True}],
    "data": [{"streaming": False}, {"streaming": True}, {"prefetch": False}],
}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {"method": "dpo", "data": {"train": {"use": "preference", "path": "pairs.jsonl"}, "max_length": 96}},
    "kd": {"method": {"use": "kd", "teacher": {"path": "teacher"}}},
}
UPDATES: dict[str, dict[str, Any]] = {
    "full": {"optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9}},
    # Of a gradient that is nearly zero Adam makes a step of full size, whichever way it was rounded; not above eps.
    "lora": {"adapter": {"use": "lora", "rank": 4}, "optimizer": {"use": "adamw", "lr": 1e-3, "eps": 1e-3}},
}


def is_legal(values: Values) -> bool:
    """An update in the backward takes the whole step as one micro-batch."""
    return values["update"] == AXES["update"][0] or values["micro"] == AXES["micro"][0]


def pairwise_cover() -> Iterator[Values]:
    """Few combinations in which every legal pair of values occurs; the first that adds most, again and again."""
    whole = [dict(zip(AXES, chosen, strict=True)) for chosen in itertools.product(*AXES.values())]
    legal = [values for values in whole if is_legal(values)]
    missing = {pair for values in legal for pair in pairs(values)}
    while missing:
        best = max(legal, key=lambda values: len(missing & pairs(values)))
        missing -= pairs(best)
        yield best


def pairs(values: Values) -> set[tuple[tuple[str, str], ...]]:
    return set(itertools.combinations(((name, repr(value)) for name, value in values.items()), 2))


def job_with(job: dict[str, Any], values: Values) -> dict[str, Any]:
    train = {**job["train"], "save_every": 2, "clip_grad_norm": None}
    for axis in ("micro", "recompute", "update", "save"):
        train |= values[axis]
    return {**job, "train": train, "data": job["data"] | values["data"]}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offloading goes to the memory of numpy: a CPU is the host itself, and has none other."""
    monkeypatch.setattr("ptsdk.train.assemble.refuse_offloading", lambda *_: None)
    monkeypatch.setattr("ptsdk.train.assemble.host_memory", lambda: NUMPY)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("method", METHODS)
def test_options_together_train_the_same(
    method: str, update: str, job: dict[str, Any], write_job: WriteJob, pairs_file: Path, tmp_path: Path
) -> None:
    job["train"] = {"steps": 4, "batch_size": 8, "seed": 3}
    if method == "kd":
        teacher = trained(job_with(job, plain()), write_job, "first")
        assert teacher
        (tmp_path / "first" / "final").rename(tmp_path / "teacher")
    job |= METHODS[method] | UPDATES[update]
    expected = trained(job_with(job, plain()), write_job, "plain")
    for number, values in enumerate(pairwise_cover()):
        try:
            assert_same(trained(job_with(job, values), write_job, f"run-{number}"), expected, rel=2e-6)
        except AssertionError as error:
            raise AssertionError(f"{values}: {error}") from error


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_resume_with_other_kernels(kind: str, job: dict[str, Any], write_job: WriteJob) -> None:
    """The state of one implementation goes on in another, prefetched or not."""
    job["train"] = {"steps": 4, "batch_size": 8, "seed": 3, "save_every": 2}
    whole = trained({**job, "optimizer": {"use": kind, "lr": 0.01, "implementation": "loop"}}, write_job, "whole")
    registry = Registry(scan())
    for steps, implementation in ((2, "fused"), (4, "foreach")):
        job["train"]["steps"] = steps
        job["optimizer"] = {"use": kind, "lr": 0.01, "implementation": implementation}
        job["data"]["prefetch"] = steps == 2
        job["output_dir"] = str(Path(job["output_dir"]).parent / "parts")
        result = run_job(load_job(write_job(job, f"{steps}.yaml"), (), registry), registry, resume=steps == 4)
    assert [row["loss"] for row in metrics(result.output_dir)] == pytest.approx(
        [row["loss"] for row in whole[0]], rel=2e-6
    )


def test_the_norm_has_its_digits_in_bfloat16(job: dict[str, Any], write_job: WriteJob) -> None:
    """The same of a step and of an update in the backward, where it is put together tensor by tensor."""
    job["model"]["dtype"] = "bfloat16"
    job["train"] = {"steps": 1, "batch_size": 8, "seed": 3}
    runs = [trained(job_with(job, {**plain(), "update": update}), write_job, str(update)) for update in AXES["update"]]
    first, second = (metrics[0]["grad_norm"] for metrics, _ in runs)
    assert first == pytest.approx(second, rel=1e-3)


def plain() -> Values:
    """Every option at its first value."""
    return {name: choices[0] for name, choices in AXES.items()}
