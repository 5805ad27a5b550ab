"""Group relative policy optimisation that is killed in the middle of a rollout ends with the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import WriteJob, ptsdk
from tests.faults.test_sigkill import comparable, run_and_kill

LORA = {"use": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}


@pytest.fixture
def grpo(job: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Three steps a rollout, a checkpoint every four: saved after its first, second and last step in turn."""
    rows = [{"prompt": f"{'why ' * (1 + i % 3)}{i}? ", "answer": str(i)} for i in range(12)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = [{"use": "length", "target": 5}, {"use": "regex", "pattern": "[a-z]", "weight": 0.5}]
    return job | {
        "data": {"train": {"use": "prompts", "path": "prompts.jsonl"}, "max_length": 96},
        "method": {"use": "grpo", "group_size": 3, "max_new_tokens": 8, "epochs": 3, "rewards": rewards},
        "train": {"steps": 26, "save_every": 4, "batch_size": 6, "micro_batch_size": 2, "seed": 3},
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sections", "killed_after"),
    [
        ({"loss": {"use": "dapo", "kl": 0.1}}, 5),
        ({"loss": {"use": "grpo", "kl": 0.1}, "adapter": LORA}, 9),
        ({"loss": "dr_grpo"}, 13),
    ],
    ids=["copy", "lora", "none"],
)
def test_killed_and_resumed_is_bit_identical(
    grpo: dict[str, Any], write_job: WriteJob, tmp_path: Path, sections: dict[str, Any], killed_after: int
) -> None:
    grpo |= sections
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = ptsdk("run", str(write_job({**grpo, "output_dir": str(whole)})))
    assert done.returncode == 0, done.stderr
    path = write_job({**grpo, "output_dir": str(killed)})
    run_and_kill(path, killed, after_step=killed_after)
    resumed = ptsdk("run", str(path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert comparable(killed) == comparable(whole)
    for file in sorted((whole / "final").glob("*.safetensors")):
        ours, theirs = load_file(killed / "final" / file.name), load_file(file)
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in theirs)
