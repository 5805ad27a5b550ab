"""A run over a packed base, or with low-bit optimizer state, that is killed and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import WriteJob, ptsdk
from tests.faults.test_sigkill import comparable, run_and_kill

LORA = {"use": "lora", "rank": 8, "alpha": 16, "dropout": 0.1}
UPDATES: dict[str, dict[str, Any]] = {
    "lora+nf4": {"adapter": LORA, "quantizer": "nf4"},
    "lora+qat": {"adapter": LORA, "quantizer": "qat"},
    "full+adamw-8bit": {"optimizer": {"use": "adamw-8bit", "lr": 1e-2}},
    "full+adamw-4bit": {"optimizer": {"use": "adamw-4bit", "lr": 1e-2}},
}


@pytest.mark.slow
@pytest.mark.parametrize("update", UPDATES)
def test_killed_and_resumed_is_bit_identical(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path, update: str
) -> None:
    job |= UPDATES[update]
    job["model"]["config"] |= {"hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 128}
    job["train"] |= {"steps": 40, "save_every": 4, "keep_last": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first = ptsdk("run", str(write_job({**job, "output_dir": str(whole)})))
    assert first.returncode == 0, first.stderr
    path = write_job({**job, "output_dir": str(killed)})
    run_and_kill(path, killed, after_step=9)
    resumed = ptsdk("run", str(path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert comparable(killed) == comparable(whole)
    last = "checkpoints/step-00000040/optimizer.safetensors"
    final = next((whole / "final").glob("*.safetensors")).name
    for file in (last, f"final/{final}"):
        ours, theirs = load_file(killed / file), load_file(whole / file)
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in theirs), file
