"""Asked to stop: the step is finished and saved, and the exit code says who asked. And ranks that die."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ptsdk.cli.main import main
from tests.conftest import WriteJob, metrics

ASK = """
import os, signal
from ptsdk.contracts.events import Callback

class Ask(Callback):
    def step(self, run, step, metrics):
        if step == 3 and "ASK" in os.environ:
            os.kill(os.getpid(), signal.Signals[os.environ["ASK"]])
"""
DIE = """
import os, signal, time
import torch
from ptsdk.builtin.losses import CrossEntropy

calls = 0

class Die(CrossEntropy):
    how: str

    def __call__(self, hidden_states, head, labels):
        global calls
        calls += 1
        if calls == 6 and os.environ["RANK"] == "1":
            if self.how == "raise":
                raise ValueError("the flux is wrong")
            if self.how == "memory":
                torch.empty(2**50)
            if self.how == "exit":
                os._exit(3)
            if self.how == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), signal.Signals[self.how])
        return super().__call__(hidden_states, head, labels)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGINT", 130)])
def test_the_step_is_finished_and_saved(
    job: dict[str, Any],
    write_job: WriteJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    code: int,
) -> None:
    (tmp_path / "ask.py").write_text(ASK)
    job["callbacks"] = [{"use": "./ask.py:Ask"}]
    assert main(["run", str(write_job({**job, "output_dir": str(tmp_path / "whole")}, "whole.yaml"))]) == 0
    monkeypatch.setenv("ASK", name)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["run", str(write_job(job))]) == code
    assert f"stopped by {name} after saving; continue with --resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    run = tmp_path / "run"
    assert [folder.name for folder in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert [row["step"] for row in metrics(run)] == [1, 2, 3] and not (run / "final").exists()
    monkeypatch.delenv("ASK")
    assert main(["run", str(tmp_path / "job.yaml"), "--resume"]) == 0
    ours, theirs = (load_file(folder / "final" / "model.safetensors") for folder in (run, tmp_path / "whole"))
    assert all(ours[key].equal(theirs[key]) for key in theirs)


def start(path: Path, count: int = 2) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ptsdk", "run", str(path), "--nproc", str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.dist
def test_a_signal_reaches_every_process(job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    job |= {"strategy": "fsdp2"}
    job["train"]["steps"] = 100_000
    process, run = start(write_job(job)), tmp_path / "run"
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_bytes():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and said.count("stopped by SIGTERM after saving") == 1, said
    (saved,) = (run / "checkpoints").iterdir()
    assert json.loads((saved / "state.json").read_text())["step"] == metrics(run)[-1]["step"]


SLOW = """
import time
from ptsdk.builtin.datasets import Instruct

class Slow(Instruct):
    def rows(self, base):
        print("reading", flush=True)
        time.sleep(60)
        return super().rows(base)
"""


@pytest.mark.dist
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["SIGUSR1", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_signal_before_there_is_anything_to_save(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path, name: str, count: int
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    job["data"]["train"]["use"] = "./slow.py:Slow"
    process = start(write_job({**job, "strategy": "single" if count == 1 else "fsdp2"}), count)
    assert process.stdout is not None and "reading" in process.stdout.readline()
    process.send_signal(signal.Signals[name])
    process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM)  # for a shell the same
    assert not (tmp_path / "run").exists()


HOW = {
    "raise": (1, "ptsdk: process 1: internal error: ValueError: the flux is wrong"),
    "memory": (1, "ptsdk: process 1: out of memory for another"),
    "exit": (3, "ptsdk: process 1 of 2 ended without a word; the others were stopped"),
    "SIGKILL": (1, "ptsdk: process 1 of 2 was killed by SIGKILL; the others were stopped"),
    "SIGUSR1": (143, "ptsdk: stopped by SIGUSR1 after saving; continue with --resume"),
}


@pytest.mark.dist
@pytest.mark.parametrize("how", [how if how == "raise" else pytest.param(how, marks=pytest.mark.slow) for how in HOW])
def test_one_of_two_processes_dies(job: dict[str, Any], write_job: WriteJob, tmp_path: Path, how: str) -> None:
    """Its own error is what is told, and nobody is left behind. A signal to one is a signal to all."""
    (tmp_path / "die.py").write_text(DIE)
    job |= {"loss": {"use": "./die.py:Die", "how": how}, "strategy": "fsdp2"}
    job["train"] |= {"save_every": 2, "micro_batch_size": 2}
    process = start(write_job(job))
    _, said = process.communicate(timeout=90)  # which lasts until the last process has let go of stderr
    code, message = HOW[how]
    assert process.returncode == code, said
    assert message in said and said.count("ptsdk:") == 1
    assert sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())[0] == "step-00000002"


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("count", [2, 4])
def test_one_of_several_processes_hangs(job: dict[str, Any], write_job: WriteJob, tmp_path: Path, count: int) -> None:
    (tmp_path / "die.py").write_text(DIE)
    job |= {"loss": {"use": "./die.py:Die", "how": "hang"}, "strategy": {"use": "fsdp2", "timeout": 5}}
    job["train"] |= {"micro_batch_size": 1}
    process = start(write_job(job), count)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 1, said
    assert f"ptsdk: process 1 of {count} did not take part in an exchange: ended, or not there within 5 s" in said
    assert said.count("ptsdk:") == 1
