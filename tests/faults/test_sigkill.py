"""A run that is killed and resumed ends with the same bits as one that was not: processes started anew,
where ``kills.py`` forks them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import WriteJob, metrics, ptsdk

VOLATILE = {"tokens_per_second", "step_seconds", "peak_memory_bytes"}


def run_and_kill(job: Path, run: Path, after_step: int) -> None:
    """SIGKILL the run as soon as metrics.jsonl shows ``after_step``."""
    process = subprocess.Popen([sys.executable, "-m", "ptsdk", "run", str(job)], stderr=subprocess.DEVNULL)
    log = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_bytes().splitlines()) >= after_step):
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def comparable(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in VOLATILE} for row in metrics(run)]


LORA = {"use": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}


@pytest.mark.parametrize(
    ("packing", "adapter"),
    [
        (True, LORA),
        pytest.param(True, None, marks=pytest.mark.slow),
        pytest.param(False, LORA, marks=pytest.mark.slow),
        pytest.param(False, None, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_is_bit_identical(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path, packing: bool, adapter: dict[str, Any] | None
) -> None:
    job["data"]["packing"] = packing
    job["train"] |= {"steps": 30, "save_every": 4, "batch_size": 6, "micro_batch_size": 2, "keep_last": 2}
    job["schedule"] = {"use": "cosine", "warmup": 0.1}
    if adapter:
        job["adapter"] = adapter
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ptsdk("run", str(write_job({**job, "output_dir": str(whole)}))).returncode == 0
    path = write_job({**job, "output_dir": str(killed)})
    run_and_kill(path, killed, after_step=10)
    refused = ptsdk("run", str(path))
    assert refused.returncode == 2 and "--resume" in refused.stderr
    resumed = ptsdk("run", str(path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert comparable(killed) == comparable(whole)
    for file in sorted((whole / "final").glob("*.safetensors")):
        ours, theirs = load_file(killed / "final" / file.name), load_file(file)
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in theirs)
    last = sorted((whole / "checkpoints").iterdir())[-1].name
    a, b = (load_file(run / "checkpoints" / last / "optimizer.safetensors") for run in (whole, killed))
    assert a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)
