"""Two processes are one: every method, full and LoRA, over ten steps, and what they refuse to do together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.broken.dists import healthy
from tests.conftest import WriteJob, metrics
from tests.matrix.cells import METHODS, VOLATILE, prepare

FAMILIES = {"sft": "gemma3", "dpo": "llama", "kd": "qwen3"}
"""Tied and untied heads; grpo's processes have a file of their own."""
UPDATES: dict[str, dict[str, Any]] = {"full": {}, "lora": {"adapter": {"use": "lora", "rank": 4, "alpha": 8}}}
TOGETHER = """
import sys
from ptsdk.cli.processes import run_together
sys.exit(run_together([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], 2, {"OMP_NUM_THREADS": "1"}))
"""
EACH = """
import sys
from pathlib import Path
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
registry = Registry(scan())
for path in sys.argv[1:]:
    run_job(load_job(Path(path), (), registry), registry)
"""


@pytest.mark.dist
@pytest.mark.parametrize("method", FAMILIES)
def test_losses_and_weights(method: str, tmp_path: Path) -> None:
    prepare(tmp_path, FAMILIES[method])
    registry = Registry(scan())
    paths = []
    for name, update in UPDATES.items():
        job = {
            "api": 1, "model": {"path": "model"}, "tokenizer": "bytes", **METHODS[method], **update,
            "optimizer": {"use": "adamw", "lr": 1e-3}, "loggers": ["jsonl"],
            "train": {"steps": 10, "batch_size": 4, "micro_batch_size": 2, "seed": 1},
        }  # fmt: skip
        for strategy in ("single", "fsdp2"):
            path = tmp_path / f"{name}-{strategy}.yaml"
            path.write_text(yaml.safe_dump(job | {"strategy": strategy, "output_dir": str(path.with_suffix(""))}))
            paths.append(path)
            if strategy == "single":
                run_job(load_job(path, (), registry), registry)
    run_in_two(paths[1::2])
    for single, sharded in zip(paths[::2], paths[1::2], strict=True):
        assert_same(single.with_suffix(""), sharded.with_suffix(""))


@pytest.mark.dist
@pytest.mark.parametrize("update", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_compiled_together(update: str, tmp_path: Path) -> None:
    """Blocks and loss as programs, in each of two processes: what a plain run in one trains."""
    prepare(tmp_path, "gemma3")
    job = {
        "api": 1, "model": {"path": "model"}, "tokenizer": "bytes", **METHODS["sft"], **UPDATES[update],
        "optimizer": {"use": "adamw", "lr": 1e-3}, "loggers": ["jsonl"],
        "train": {"steps": 3, "batch_size": 4, "micro_batch_size": 2, "seed": 1},
    }  # fmt: skip
    plain, compiled = tmp_path / "plain.yaml", tmp_path / "compiled.yaml"
    plain.write_text(yaml.safe_dump({**job, "output_dir": str(tmp_path / "plain")}))
    job |= {"strategy": "fsdp2", "train": {**job["train"], "compile": {"model": True, "loss": True}}}
    compiled.write_text(yaml.safe_dump({**job, "output_dir": str(tmp_path / "compiled")}))
    registry = Registry(scan())
    run_job(load_job(plain, (), registry), registry)
    run_in_two([compiled])
    assert all(step["compiled_graphs"] > 0 for step in metrics(tmp_path / "compiled"))
    assert_same(tmp_path / "plain", tmp_path / "compiled")


def run_in_two(jobs: list[Path]) -> None:
    """Each job in turn, in one pair of processes."""
    command = [sys.executable, "-c", TOGETHER, EACH, *map(str, jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def assert_same(single: Path, sharded: Path) -> None:
    """To 1e-5 of each metric and weight (absolute where it is near zero)."""
    for a, b in zip(metrics(single), metrics(sharded), strict=True):
        assert a.keys() == b.keys() - {"compiled_graphs"}
        for key in a.keys() - VOLATILE:
            assert b[key] == pytest.approx(a[key], rel=1e-5, abs=1e-6), (a["step"], key)
    (file,) = (single / "final").glob("*.safetensors")
    theirs = load_file(sharded / "final" / file.name)
    for name, weight in load_file(file).items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-5, atol=2e-6, msg=name)


@pytest.mark.dist
@pytest.mark.parametrize("what", ["option", "version"])
def test_processes_that_would_run_different_things_stop(
    what: str, job: dict[str, Any], write_job: WriteJob, tmp_path: Path
) -> None:
    """Each is started by itself, as on two machines."""
    site = {0: healthy("ptsdk-x-zero", "zero", "1.0"), 1: healthy("ptsdk-x-zero", "zero", "2.0")}
    if what == "version":
        zero = "from ptsdk.builtin.losses import CrossEntropy as Zero\n"
        site = {rank: type(dist)(**{**vars(dist), "modules": {"losses.py": zero}}) for rank, dist in site.items()}
        job["loss"] = "zero"
    path = write_job(job | {"strategy": "fsdp2"})
    processes = []
    for rank, dist in site.items():
        folder = dist.install(tmp_path / f"site{rank}")
        overrides = ["optimizer.lr=0.5"] if what == "option" and rank else []
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "ptsdk", "run", str(path), *overrides],
                env={**os.environ, "PYTHONPATH": str(folder), **{key: str(value) for key, value in place.items()}},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    says = "optimizer.lr: 0.01 in process 0, 0.5 in process 1" if what == "option" else "ptsdk-x-zero"
    assert says in errors[0] and "the processes do not run the same job" in errors[0], errors[0]
    assert not (tmp_path / "run").exists()


def port(found: list[int] = []) -> int:  # noqa: B006  one for both processes
    """A port that is free."""
    import socket

    if not found:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            found.append(free.getsockname()[1])
    return found[0]
