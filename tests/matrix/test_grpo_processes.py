"""A rollout spread over processes: groups are cut anywhere, and nothing of a run changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import WriteJob, metrics, ptsdk
from tests.faults.test_sigkill import VOLATILE, comparable

LORA = {"adapter": {"use": "lora", "rank": 4, "alpha": 8}}
REWARD = """
class Picky:
    limit: int = 8

    def score(self, completions, rows):
        if any(row["number"] >= self.limit for row in rows):
            raise ValueError("a number too large")
        return [len(set(text)) / 8 for text in completions]
"""


def sampled(folder: Path) -> dict[str, Any]:
    """What a job needs to sample and reward, with its files written into ``folder``."""
    (folder / "reward.py").write_text(REWARD)
    rows = [{"prompt": f"{'why ' * (1 + i % 3)}{i}? ", "number": i} for i in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "data": {"train": {"use": "prompts", "path": "prompts.jsonl"}, "max_length": 96},
        "method": {"use": "grpo", "group_size": 4, "max_new_tokens": 8, "epochs": 2, "rewards": ["./reward.py:Picky"]},
    }


@pytest.fixture
def grpo(job: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Three groups of four a step: two processes share the second one."""
    optimizer = {"use": "adamw", "lr": 1e-3}
    train = {"steps": 10, "batch_size": 12, "micro_batch_size": 4, "seed": 3}
    return {**job, **sampled(tmp_path), "optimizer": optimizer, "train": train}


def run(write_job: WriteJob, job: dict[str, Any], out: Path, processes: int, *flags: str) -> Any:
    strategy = {"strategy": "fsdp2"} if processes > 1 else {}
    several = ["--nproc", str(processes)] if processes > 1 else []
    return ptsdk("run", str(write_job({**job, **strategy, "output_dir": str(out)})), *several, *flags)


def assert_same(ours: Path, theirs: Path) -> None:
    for a, b in zip(metrics(ours), metrics(theirs), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - VOLATILE:
            assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-6), (a["step"], key)
    (file,) = (theirs / "final").glob("*.safetensors")
    weights = load_file(ours / "final" / file.name)
    for name, weight in load_file(file).items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.dist
@pytest.mark.parametrize(
    ("loss", "update"), [({"use": "grpo", "kl": 0.1}, {}), ({"use": "dapo", "kl": 0.1}, LORA)], ids=["full", "lora"]
)
def test_two_processes_are_one(
    grpo: dict[str, Any], write_job: WriteJob, tmp_path: Path, loss: dict[str, Any], update: dict[str, Any]
) -> None:
    grpo |= {"loss": loss, **update}
    for processes in (1, 2):
        done = run(write_job, grpo, tmp_path / str(processes), processes)
        assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "2", tmp_path / "1")


@pytest.mark.dist
def test_a_rollout_saved_by_two_is_learned_from_by_two_and_by_one(
    grpo: dict[str, Any], write_job: WriteJob, tmp_path: Path
) -> None:
    grpo |= {"loss": {"use": "grpo", "kl": 0.1}}
    assert run(write_job, grpo, tmp_path / "whole", 2).returncode == 0
    cut = {**grpo, "train": {**grpo["train"], "steps": 5}}
    for processes in (2, 1):
        out = tmp_path / str(processes)
        assert run(write_job, cut, out, 2).returncode == 0
        resumed = run(write_job, grpo, out, processes, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert_same(out, tmp_path / "whole")
    assert comparable(tmp_path / "2") == comparable(tmp_path / "whole")


@pytest.mark.dist
def test_a_process_without_completions_keeps_step(grpo: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    """Two completions on three processes."""
    grpo["method"] |= {"group_size": 2}
    grpo |= {"loss": {"use": "dapo", "kl": 0.1}}
    grpo["train"] |= {"batch_size": 2, "micro_batch_size": 1, "steps": 4}
    for processes in (1, 3):
        done = run(write_job, grpo, tmp_path / str(processes), processes)
        assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "3", tmp_path / "1")


@pytest.mark.dist
def test_a_reward_that_fails_on_one_process_ends_all(grpo: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    grpo["method"] |= {"rewards": [{"use": "./reward.py:Picky", "limit": 7}]}
    done = run(write_job, grpo, tmp_path / "run", 2)
    assert done.returncode == 1
    assert "reward Picky failed: ValueError: a number too large" in done.stderr
    assert "Traceback" not in done.stderr
