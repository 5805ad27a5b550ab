"""Small real jobs for the cross-package tests."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

WORDS = ["the", "model", "reads", "one", "row", "and", "learns", "what", "comes", "after", "every", "word", "of", "it"]


def pytest_configure(config: pytest.Config) -> None:
    """One thread a process, of this one (torch has been imported) and of those it starts: tests run side by
    side, and sums keep one order."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a group shares is made once, which takes minutes, or it is told that groups are not kept together."""
    grouped = [item.nodeid for item in items if item.get_closest_marker("xdist_group")]
    if getattr(config.option, "loadgroup", False) and not all("@" in name for name in grouped):
        raise pytest.UsageError("this pytest does not let this pytest-xdist group tests: see constraints.txt")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """40 prompt/completion rows of uneven length."""
    path = tmp_path / "train.jsonl"
    with path.open("w") as file:
        for i in range(40):
            prompt = " ".join(WORDS[(i + j) % len(WORDS)] for j in range(1 + i % 5)) + "? "
            completion = " ".join(WORDS[(i * 3 + j) % len(WORDS)] for j in range(1 + (i * 7) % 6))
            file.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    return path


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """40 pairs of completions of uneven length."""
    path = tmp_path / "pairs.jsonl"
    with path.open("w") as file:
        for i in range(40):
            words = [" ".join(WORDS[(i * k + j + k) % len(WORDS)] for j in range(k + i % 6)) for k in (1, 3, 5)]
            file.write(json.dumps(dict(zip(("prompt", "chosen", "rejected"), words, strict=True))) + "\n")
    return path


@pytest.fixture
def job(tmp_path: Path, rows: Path) -> dict[str, Any]:
    """A job on the built-in components alone; change what a test is about."""
    return {
        "api": 1,
        "model": {"use": "tiny", "config": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}},
        "tokenizer": {"use": "bytes"},
        "data": {"train": {"use": "instruct", "path": str(rows)}, "max_length": 96},
        "method": "sft",
        "optimizer": {"use": "adamw", "lr": 1e-2},
        "loggers": ["jsonl"],
        "train": {"steps": 6, "batch_size": 8, "micro_batch_size": 4, "seed": 3},
        "output_dir": str(tmp_path / "run"),
    }


WriteJob = Callable[[dict[str, Any]], Path]


@pytest.fixture
def write_job(tmp_path: Path) -> WriteJob:
    """Write a job beside its data and return its path."""

    def write(job: dict[str, Any], name: str = "job.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(job))
        return path

    return write


def ptsdk(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ptsdk", *args], capture_output=True, text=True, env={**os.environ, **env}, timeout=300
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def docs_script(name: str) -> ModuleType:
    """A script of docs/ as a module; it may import its neighbours."""
    folder = Path(__file__).parents[1] / "docs"
    spec = importlib.util.spec_from_file_location(f"docs_{name}", folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        spec.loader.exec_module(module)
    return module
