"""The checkpoint a run starts from is read, never written, whatever is memory-mapped."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.conftest import WriteJob


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_training_leaves_the_checkpoint_it_started_from_alone(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path
) -> None:
    registry = Registry(scan())
    first = run_job(load_job(write_job(job), (), registry), registry)
    before = digests(first.final_dir)
    job |= {"model": {"path": str(first.final_dir)}, "output_dir": str(tmp_path / "second")}
    second = run_job(load_job(write_job(job), (), registry), registry)
    assert digests(first.final_dir) == before
    assert digests(second.final_dir)["model.safetensors"] != before["model.safetensors"]
