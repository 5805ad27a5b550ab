"""Running out of memory ends with what would help."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ptsdk.cli.main import main
from ptsdk.errors import RunError
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.memory import memory_explained
from tests.conftest import WriteJob


def test_more_than_there_is_on_a_cpu(
    job: dict[str, Any], write_job: WriteJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """2^45 rows of an embedding: 4 PiB, which no allocator gives."""
    job["model"]["config"] |= {"vocab_size": 2**45}
    assert main(["run", str(write_job(job))]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "ptsdk: out of memory for another 4503599627370496 bytes\n    lower train.micro_batch_size, now 4:"
    )
    assert "activation_checkpointing=full" in said and "`ptsdk plan JOB`" in said and "adapter" in said


def test_on_an_accelerator_with_all_of_it_done_already(job: dict[str, Any], write_job: WriteJob) -> None:
    job["adapter"] = {"use": "lora", "rank": 2}
    job["train"] |= {"micro_batch_size": 1, "activation_checkpointing": "full"}
    loaded = load_job(write_job(job), (), Registry(scan()))
    with pytest.raises(RunError) as caught, memory_explained(loaded):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of ..."
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "out of memory for another 2.50 GiB" and len(lines) == 3 and "max_length, now 96" in lines[1]


def test_other_errors_are_let_through(job: dict[str, Any], write_job: WriteJob) -> None:
    loaded = load_job(write_job(job), (), Registry(scan()))
    with pytest.raises(RuntimeError, match="shapes"), memory_explained(loaded):
        raise RuntimeError("shapes differ")
