"""Checkpoints that cannot be written, and checkpoints that were damaged afterwards."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ptsdk.checkpoint.files import WriteError, verify_manifest
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.conftest import WriteJob, metrics

VOLATILE = {"tokens_per_second", "step_seconds", "peak_memory_bytes"}
FULL_DISK = """
import os, resource, signal
from ptsdk.contracts.events import Callback

class FullDisk(Callback):
    # No file may be longer than 20 kB from one step on, until another.
    begin: int
    end: int = 99
    sigterm: bool = False

    def step(self, run, step, metrics):
        if "FULL_DISK" in os.environ and step in (self.begin, self.end):
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000 if step == self.begin else hard, hard))
            if self.sigterm:
                os.kill(os.getpid(), signal.SIGTERM)
"""


def launch(job: dict[str, Any], write_job: WriteJob, resume: bool = False) -> Path:
    registry = Registry(scan())
    return run_job(load_job(write_job(job), (), registry), registry, resume=resume).output_dir


def comparable(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in VOLATILE} for row in metrics(run)]


def same_weights(run: Path, other: Path) -> bool:
    ours, theirs = (load_file(folder / "final" / "model.safetensors") for folder in (run, other))
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in theirs)


@contextmanager
def file_limit_restored() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def filling(job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Saves at each second of six steps; there is no room at the fourth."""
    monkeypatch.setenv("FULL_DISK", "1")
    (tmp_path / "disk.py").write_text(FULL_DISK)
    job["callbacks"] = [{"use": "./disk.py:FullDisk", "begin": 3, "end": 5}]
    job["train"] |= {"save_every": 2, "keep_last": None}
    return job


def steps_saved(run: Path) -> list[int]:
    folders = sorted((run / "checkpoints").iterdir())
    assert all(verify_manifest(folder) == [] for folder in folders)
    return [int(folder.name.removeprefix("step-")) for folder in folders]


def test_a_full_disk_stops_the_run_and_leaves_what_was_saved(
    filling: dict[str, Any], write_job: WriteJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = launch({**filling, "callbacks": [], "output_dir": str(tmp_path / "whole")}, write_job)
    with file_limit_restored(), pytest.raises(WriteError, match=r"cannot write .*step-00000004(.|\n)*make room"):
        launch(filling, write_job)
    run = Path(filling["output_dir"])
    assert steps_saved(run) == [2] and [row["step"] for row in metrics(run)] == [1, 2, 3, 4]
    monkeypatch.delenv("FULL_DISK")
    assert same_weights(launch(filling, write_job, resume=True), whole)
    assert comparable(run) == comparable(whole)


def test_a_run_goes_on_beside_a_full_disk_if_told_to(
    filling: dict[str, Any], write_job: WriteJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filling["train"]["on_save_error"] = "continue"
    with file_limit_restored():
        run = launch(filling, write_job)
    assert steps_saved(run) == [2, 6]
    said = capsys.readouterr().err
    assert said.count("cannot write") == 1 and "step-00000004" in said and "the run goes on" in said
    whole = launch({**filling, "callbacks": [], "output_dir": str(tmp_path / "whole")}, write_job)
    assert same_weights(run, whole)


def test_a_signal_does_not_claim_to_have_saved_what_it_could_not(filling: dict[str, Any], write_job: WriteJob) -> None:
    filling["train"]["on_save_error"] = "continue"
    filling["callbacks"][0] |= {"sigterm": True}
    with file_limit_restored(), pytest.raises(WriteError, match="step-00000003"):
        launch(filling, write_job)
    assert steps_saved(Path(filling["output_dir"])) == [2]


def truncated(folder: Path) -> None:
    file = folder / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def flipped(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 4
    file.write_bytes(content)


def without_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def half_written(folder: Path) -> None:
    """Two files of five, as a copy that was broken off leaves them."""
    for name in ("manifest.json", "state.json", "lock.json"):
        (folder / name).unlink()


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncated, flipped, without_manifest, half_written, emptied])
def test_a_damaged_checkpoint_is_passed_over_by_name(
    job: dict[str, Any],
    write_job: WriteJob,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
) -> None:
    job["train"] |= {"save_every": 2, "keep_last": None}
    run = launch(job, write_job)
    shutil.copytree(run, tmp_path / "whole")
    newest = run / "checkpoints" / "step-00000006"
    damage(newest)
    capsys.readouterr()
    launch(job, write_job, resume=True)
    said = capsys.readouterr().err
    assert f"checkpoint {newest} is damaged and was skipped" in said
    assert same_weights(run, tmp_path / "whole") and comparable(run) == comparable(tmp_path / "whole")
    assert verify_manifest(newest) == [], "it was written anew"
