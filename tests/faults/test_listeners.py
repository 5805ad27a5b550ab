"""Loggers and callbacks that raise, hang, or talk to a server that is down: warned once, the run unharmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.conftest import WriteJob, metrics

BAD = """
import threading
from ptsdk.contracts.events import Callback, Logger

class Hangs(Logger):
    def step(self, run, step, metrics):
        if step == 2:
            threading.Event().wait()

class HangsInTheEnd(Callback):
    def run_end(self, run, error):
        threading.Event().wait()

class Raises(Callback):
    def step(self, run, step, metrics):
        raise ConnectionError("the server is down")
    def should_stop(self, run, step, metrics):
        raise ConnectionError("the server is down")
"""


def launch(job: dict[str, Any], write_job: WriteJob) -> Path:
    registry = Registry(scan())
    return run_job(load_job(write_job(job), (), registry), registry).output_dir


def unharmed(run: Path, alone: Path) -> None:
    rows = metrics(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows] == [row["loss"] for row in metrics(alone)]
    ours, theirs = (load_file(folder / "final" / "model.safetensors") for folder in (run, alone))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_what_raises_or_hangs_is_told_once(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job["train"]["save_every"] = 2
    alone = launch({**job, "output_dir": str(tmp_path / "alone")}, write_job)
    (tmp_path / "bad.py").write_text(BAD)
    job["loggers"] = [{"use": "./bad.py:Hangs", "timeout": 0.2}, "jsonl"]
    job["callbacks"] = ["./bad.py:Raises", {"use": "./bad.py:HangsInTheEnd", "timeout": 0.2}]
    capsys.readouterr()
    unharmed(launch(job, write_job), alone)
    said = capsys.readouterr().err
    assert said.count("logger ./bad.py:Hangs has not returned from step for 0.2 s") == 1
    assert said.count("callback ./bad.py:Raises failed in step: ConnectionError: the server is down") == 1
    assert said.count("callback ./bad.py:HangsInTheEnd has not returned from run_end for 0.2 s") == 1
    assert said.count("ptsdk:") == 3, said


@pytest.mark.slow
def test_a_tracking_server_that_is_down(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = launch({**job, "output_dir": str(tmp_path / "alone")}, write_job)
    job["loggers"] = [{"use": "mlflow", "tracking_uri": "http://127.0.0.1:9", "timeout": 3}, "jsonl"]
    capsys.readouterr()
    unharmed(launch(job, write_job), alone)
    said = capsys.readouterr().err
    assert "ptsdk: logger ptsdk-mlflow/mlflow has not returned from run_start for 3 s" in said
