"""Distillation that is killed and resumed ends with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.conftest import WriteJob, ptsdk
from tests.faults.test_sigkill import comparable, run_and_kill


@pytest.mark.slow
@pytest.mark.parametrize(
    "adapter", [{}, {"adapter": {"use": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}}], ids=["full", "lora"]
)
def test_killed_and_resumed_is_bit_identical(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path, adapter: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=320, hidden_size=40, intermediate_size=48, num_hidden_layers=2, num_attention_heads=5,
        num_key_value_heads=1, head_dim=12,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "teacher")
    job |= {"method": {"use": "kd", "teacher": {"path": "teacher"}, "ratio": 0.4}, "loss": "jsd", **adapter}
    job["train"] |= {"steps": 24, "save_every": 4, "batch_size": 6, "micro_batch_size": 2}
    job["schedule"] = {"use": "cosine", "warmup": 0.1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = ptsdk("run", str(write_job({**job, "output_dir": str(whole)})))
    assert done.returncode == 0, done.stderr
    path = write_job({**job, "output_dir": str(killed)})
    run_and_kill(path, killed, after_step=8)
    resumed = ptsdk("run", str(path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert comparable(killed) == comparable(whole)
    names = {file.name for file in (whole / "final").glob("*.safetensors")}
    assert names == ({"adapter_model.safetensors"} if adapter else {"model.safetensors"})
    for name in names:
        ours, theirs = load_file(killed / "final" / name), load_file(whole / "final" / name)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in theirs)
