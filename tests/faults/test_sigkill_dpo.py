"""Preference optimisation that is killed and resumed ends with the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import WORDS, WriteJob, ptsdk
from tests.faults.test_sigkill import comparable, run_and_kill


@pytest.fixture
def dpo(job: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    rows = []
    for i in range(24):
        words = [WORDS[(i * 3 + j) % len(WORDS)] for j in range(14)]
        rows.append({"prompt": f"{words[0]}? ", "chosen": " ".join(words[1 : 2 + i % 5]), "rejected": words[7]})
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"steps": 24, "save_every": 4, "batch_size": 6, "micro_batch_size": 2, "seed": 3, "validate_every": 6}
    data = {"train": {"use": "preference", "path": str(pairs)}, "validation": {"use": "preference", "path": str(pairs)}}
    return job | {"data": {**data, "max_length": 96}, "train": train}


@pytest.mark.parametrize(
    ("reference", "adapter"),
    [
        pytest.param("auto", {}, marks=pytest.mark.slow),
        pytest.param(
            "auto", {"adapter": {"use": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}}, marks=pytest.mark.slow
        ),
        ("precompute", {}),
    ],
    ids=["copy", "off", "precompute"],
)
def test_killed_and_resumed_is_bit_identical(
    dpo: dict[str, Any], write_job: WriteJob, tmp_path: Path, reference: str, adapter: dict[str, Any]
) -> None:
    dpo |= {"method": {"use": "dpo", "reference": reference}, **adapter}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = ptsdk("run", str(write_job({**dpo, "output_dir": str(whole)})))
    assert done.returncode == 0, done.stderr
    path = write_job({**dpo, "output_dir": str(killed)})
    run_and_kill(path, killed, after_step=8)
    known = sorted((killed / "reference").glob("*.safetensors"))
    written = [file.stat().st_mtime_ns for file in known]
    assert len(known) == (reference == "precompute")
    resumed = ptsdk("run", str(path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert [file.stat().st_mtime_ns for file in known] == written, "the reference was computed again"
    assert comparable(killed) == comparable(whole)
    for file in sorted((whole / "final").glob("*.safetensors")):
        ours, theirs = load_file(killed / "final" / file.name), load_file(file)
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in theirs)
