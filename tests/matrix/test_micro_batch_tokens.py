"""Micro-batches by tokens: the same step, cut otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptsdk.job import load_job
from ptsdk.nn.batch import Batch
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from ptsdk.train.trainer import Trainer
from tests.conftest import metrics
from tests.faults.kills import METHODS, Cell, write_data
from tests.matrix.test_grpo_processes import assert_same
from tests.matrix.test_processes import run_in_two

REGISTRY = Registry(scan())
TOKENS = 100
CUTS: dict[str, dict[str, Any]] = {"size": {}, "tokens": {"micro_batch_size": None, "micro_batch_tokens": TOKENS}}


def written(folder: Path, method: str, cut: str, data: str = "mixture", **train: Any) -> Path:
    job = Cell(method, "full", 1, data).job(folder / cut, steps=6, batch_size=12, **CUTS[cut], **train)
    path = folder / f"{cut}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def run(path: Path, **options: Any) -> Path:
    return run_job(load_job(path, (), REGISTRY), REGISTRY, **options).output_dir


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    write_data(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_losses_gradients_and_weights_are_those_of_sizes(method: str, tmp_path: Path, monkeypatch) -> None:
    seen: list[tuple[int, int]] = []
    step = Trainer.step

    def counted(self: Trainer, micro_batches: list[Batch]) -> dict[str, float]:
        examples = 2 if method == "dpo" else 1
        seen.extend((len(batch.tokens), len(batch.seq_lens) // examples) for batch in micro_batches)
        return step(self, micro_batches)

    by_size = run(written(tmp_path, method, "size"))
    monkeypatch.setattr(Trainer, "step", counted)
    by_tokens = run(written(tmp_path, method, "tokens"))
    assert all(tokens <= TOKENS or examples == 1 for tokens, examples in seen)
    assert any(examples > 2 for _, examples in seen)
    assert_same(by_tokens, by_size)


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_resumed_run_has_the_same_bits(method: str, tmp_path: Path) -> None:
    path = written(tmp_path, method, "tokens", keep_last=None, save_every=3)
    whole = run(path)
    log = [{k: v for k, v in row.items() if "second" not in k and "peak" not in k} for row in metrics(whole)]
    final = (whole / "final" / "model.safetensors").read_bytes()
    shutil.rmtree(whole / "checkpoints" / "step-00000006")
    resumed = run(path, resume=True)
    assert [{k: v for k, v in row.items() if "second" not in k and "peak" not in k} for row in metrics(resumed)] == log
    assert (resumed / "final" / "model.safetensors").read_bytes() == final


@pytest.mark.dist
def test_two_processes_are_one(tmp_path: Path) -> None:
    paths = {}
    for method, data in (("sft", "packed"), ("grpo", "mixture"), ("dpo", "mixture")):
        (tmp_path / method).mkdir()
        write_data(tmp_path / method)
        single = written(tmp_path / method, method, "tokens", data)
        job = yaml.safe_load(single.read_text())
        double = tmp_path / method / "two.yaml"
        double.write_text(json.dumps({**job, "strategy": "fsdp2", "output_dir": str(tmp_path / method / "two")}))
        paths[double] = run(single)
    run_in_two([*paths])
    for double, single in paths.items():
        assert_same(double.with_suffix(""), single)
