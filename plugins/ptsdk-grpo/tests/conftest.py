"""Small real jobs on core and this package alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptsdk.contracts.run import Run
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.assemble import assemble
from ptsdk.train.launch import run_job

REWARD = """
class Letter:
    letter: str = "a"

    def score(self, completions, rows):
        return [text.count(self.letter) / max(1, len(text)) for text in completions]


class Answer:
    def score(self, completions, rows):
        return [float(row["answer"] in text) for text, row in zip(completions, rows)]


class Short:
    def score(self, completions, rows):
        return [1.0] * (len(completions) - 1)


class Endless:
    def score(self, completions, rows):
        return [0.5] * (len(completions) - 1) + [float("nan")]


class Vague:
    def score(self, completions, rows):
        return ["good"] * len(completions)


class Buggy:
    def score(self, completions, rows):
        return [len(text) / 0 for text in completions]
"""


def pytest_configure(config: pytest.Config) -> None:
    """One thread a process: sums keep one order."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    """A job of 8 completions a step; change what a test is about."""
    (tmp_path / "reward.py").write_text(REWARD)
    rows = [{"prompt": "q" * (1 + i % 5) + f"{i}: ", "answer": "ab"[i % 2]} for i in range(16)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "api": 1,
        "model": {"use": "tiny", "config": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}},
        "tokenizer": {"use": "bytes"},
        "data": {"train": {"use": "prompts", "path": "prompts.jsonl"}, "max_length": 64},
        "method": {"use": "grpo", "group_size": 4, "max_new_tokens": 6, "rewards": [{"use": "./reward.py:Letter"}]},
        "optimizer": {"use": "adamw", "lr": 3e-3},
        "loggers": ["jsonl"],
        "train": {"steps": 4, "batch_size": 8, "micro_batch_size": 4, "seed": 3},
        "output_dir": str(tmp_path / "run"),
    }


@pytest.fixture
def load(tmp_path: Path) -> Callable[[dict[str, Any]], Any]:
    """The frozen job of a mapping."""

    def load(job: dict[str, Any]) -> Any:
        path = tmp_path / "job.yaml"
        path.write_text(json.dumps(job))
        return load_job(path, (), Registry(scan()))

    return load


@pytest.fixture
def assembled(load: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Run]:
    """Everything alive, nothing written."""
    return lambda job: assemble(load(job), Registry(scan()))


@pytest.fixture
def train(load: Callable[[dict[str, Any]], Any], tmp_path: Path) -> Callable[..., tuple[list[dict[str, Any]], Path]]:
    """Runs a job; its metrics and its directory."""

    def train(job: dict[str, Any], name: str = "run", **options: bool) -> tuple[list[dict[str, Any]], Path]:
        result = run_job(load({**job, "output_dir": str(tmp_path / name)}), Registry(scan()), **options)
        lines = (result.output_dir / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], result.output_dir

    return train
