"""A run of another length, or one that a callback ended: what a resume may and may not continue."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ptsdk.errors import PtsdkError, UserError
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from ptsdk.train.result import RunResult
from tests.conftest import WriteJob, metrics

VOLATILE = {"tokens_per_second", "step_seconds", "peak_memory_bytes"}
KILL = """
import os, signal
from ptsdk.contracts.events import Callback

class Kill(Callback):
    def step(self, run, step, metrics):
        if str(step) == os.environ.get("KILL_AT"):
            os.kill(os.getpid(), signal.SIGTERM)
"""


def launch(job: dict[str, Any], write_job: WriteJob, out: Path, resume: bool = False) -> RunResult:
    registry = Registry(scan())
    path = write_job({**job, "output_dir": str(out)}, f"{out.name}.yaml")
    return run_job(load_job(path, (), registry), registry, resume=resume)


def assert_same_run(a: Path, b: Path) -> None:
    """Equal metrics, equal bits."""
    rows = [[{k: v for k, v in row.items() if k not in VOLATILE} for row in metrics(run)] for run in (a, b)]
    assert rows[0] == rows[1]
    ours, theirs = (load_file(run / "final" / "model.safetensors") for run in (a, b))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "adafactor", "muon"])
def test_a_constant_run_extended_is_the_long_run(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path, optimizer: str
) -> None:
    job["optimizer"] = {"use": optimizer, "lr": 1e-3} | ({"momentum": 0.9} if optimizer == "sgd" else {})
    launch(job, write_job, tmp_path / "whole")
    for steps in (2, 5, 6):  # 5 steps of 8 are the end of the first epoch of 40 rows
        job["train"]["steps"] = steps
        launch(job, write_job, tmp_path / "grown", resume=steps > 2)
    assert_same_run(tmp_path / "grown", tmp_path / "whole")


def test_more_epochs_after_a_batch_cut_short_are_refused(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path
) -> None:
    """40 rows in batches of 12 end with one of 4, which a run of 2 epochs would have filled up."""
    job["train"] = {"epochs": 1, "batch_size": 12, "micro_batch_size": 4}
    launch(job, write_job, tmp_path / "run")
    job["train"]["epochs"] = 2
    with pytest.raises(UserError, match="epochs"):
        launch(job, write_job, tmp_path / "run", resume=True)


def test_more_epochs_after_whole_batches_continue(job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    job["train"] = {"epochs": 2, "batch_size": 8, "micro_batch_size": 4}
    launch(job, write_job, tmp_path / "whole")
    job["train"]["epochs"] = 1
    launch(job, write_job, tmp_path / "grown")
    job["train"]["epochs"] = 2
    launch(job, write_job, tmp_path / "grown", resume=True)
    assert_same_run(tmp_path / "grown", tmp_path / "whole")


def test_a_run_is_not_shortened_below_what_it_did(job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    launch(job, write_job, tmp_path / "run")
    job["train"]["steps"] = 4
    with pytest.raises(UserError, match="steps"):
        launch(job, write_job, tmp_path / "run", resume=True)


@pytest.fixture
def stops_early(job: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A job that early stopping ends at step 3 of 6."""
    (tmp_path / "kill.py").write_text(KILL)
    stopping = {"use": "early_stopping", "metric": "loss", "patience": 2, "min_delta": 100.0}
    return {**job, "callbacks": [stopping, {"use": "./kill.py:Kill"}]}


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_a_run_that_stopped_early_stays_stopped(
    stops_early: dict[str, Any], write_job: WriteJob, tmp_path: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launch(stops_early, write_job, tmp_path / "whole").steps == 3
    monkeypatch.setitem(os.environ, "KILL_AT", str(killed_at))
    with pytest.raises(PtsdkError, match="SIGTERM"):
        launch(stops_early, write_job, tmp_path / "killed")
    for _ in range(2):
        assert launch(stops_early, write_job, tmp_path / "killed", resume=True).steps == 3
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
