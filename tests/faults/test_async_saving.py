"""``train.async_save``: what is written while training goes on is what was there, is told of, and is waited for."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptsdk.checkpoint import state
from ptsdk.checkpoint.files import WriteError, verify_manifest
from ptsdk.errors import RunError
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.events import RunEventBus
from ptsdk.train.launch import run_job
from ptsdk.train.signals import Stopped
from tests.conftest import WriteJob, metrics

WITH_STATE: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"adapter": {"use": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}},
    "in-backward": {"train": {"optimizer_in_backward": True, "clip_grad_norm": None, "micro_batch_size": 8}},
    "8-bit": {"optimizer": {"use": "adamw-8bit", "lr": 1e-3}},
}
Act = Callable[[], None]


class Held:
    """Holds up the writing of ``step`` until the event of the step after it, which then does ``act``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, act: Act = lambda: None) -> None:
        self.told: list[str] = []
        self._gate, self._step, self._act = threading.Event(), step, act
        self._write = state.Draft.write
        monkeypatch.setattr(state.Draft, "write", lambda draft, run_dir: self._held(draft, run_dir))
        for event in ("step", "checkpoint"):
            monkeypatch.setattr(RunEventBus, event, self._heard(event, getattr(RunEventBus, event)))
        monkeypatch.setattr(RunEventBus, "run_end", lambda *_: self.told.append("end"))

    def _held(self, draft: state.Draft, run_dir: Any) -> Path:
        if draft.step == self._step:
            assert self._gate.wait(30), "training has not gone on"
        return self._write(draft, run_dir)

    def _heard(self, event: str, tell: Callable[..., None]) -> Callable[..., None]:
        def told(bus: RunEventBus, run: Any, step: int, *more: Any) -> None:
            assert threading.current_thread() is threading.main_thread()
            self.told.append(f"{event} {step}")
            tell(bus, run, step, *more)
            if (event, step) == ("step", self._step + 1):
                self._act()
                self._gate.set()

        return told


@pytest.fixture
def saving(job: dict[str, Any]) -> dict[str, Any]:
    """Six steps, a checkpoint each second one, all kept."""
    job["train"] |= {"save_every": 2, "keep_last": None, "async_save": True}
    return job


def launch(job: dict[str, Any], write_job: WriteJob, **options: Any) -> Path:
    registry = Registry(scan())
    return run_job(load_job(write_job(job), (), registry), registry, **options).output_dir


def checkpoints(run: Path) -> dict[str, bytes]:
    """Every file of every checkpoint but for what differs between any two runs."""
    folders = sorted((run / "checkpoints").iterdir())
    assert all(verify_manifest(folder) == [] for folder in folders)
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    files = [file for file in files if file.name not in ("lock.json", "manifest.json")]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "8-bit" else ()) for kind in WITH_STATE]
)
def test_what_is_written_is_what_was_there(
    saving: dict[str, Any], write_job: WriteJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    saving |= {**WITH_STATE[kind], "train": {**saving["train"], **WITH_STATE[kind].get("train", {})}}
    train = saving["train"] | {"async_save": False}
    waited = launch({**saving, "train": train, "output_dir": str(tmp_path / "waited")}, write_job)
    held = Held(monkeypatch, 2)
    run = launch(saving, write_job)
    assert checkpoints(run) == checkpoints(waited)
    # Told at the end of the step in which it was complete, at the latest before the next one is written.
    assert held.told.index("step 3") < held.told.index("checkpoint 2") < held.told.index("checkpoint 4")
    assert held.told[-2:] == ["checkpoint 6", "end"]


def test_a_signal_waits_for_both(saving: dict[str, Any], write_job: WriteJob, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        launch(saving, write_job)
    assert {name.split("/")[1] for name in checkpoints(Path(saving["output_dir"]))} == {
        "step-00000002",
        "step-00000003",
    }
    assert held.told[-3:] == ["checkpoint 2", "checkpoint 3", "end"]


def test_an_error_waits_for_what_is_being_written(
    saving: dict[str, Any], write_job: WriteJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RunError("the flux is wrong")

    held = Held(monkeypatch, 2, lambda: threading.Timer(0.2, held._gate.set).start() or fail())
    with pytest.raises(RunError, match="the flux is wrong"):
        launch(saving, write_job)
    assert {name.split("/")[1] for name in checkpoints(Path(saving["output_dir"]))} == {"step-00000002"}
    assert held.told[-2:] == ["checkpoint 2", "end"]


def no_room(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The disk is full at ``step``."""
    save = state.save_tensors

    def failing(tensors: Any, path: Path) -> None:
        if path.parent.name.startswith(f".step-{step:08d}"):
            raise OSError(28, "No space left on device")
        save(tensors, path)

    monkeypatch.setattr(state, "save_tensors", failing)


def test_a_full_disk_stops_the_run_at_the_next_step(
    saving: dict[str, Any], write_job: WriteJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_room(monkeypatch, 2)
    held = Held(monkeypatch, 2)
    with pytest.raises(WriteError, match=r"cannot write .*step-00000002(.|\n)*make room"):
        launch(saving, write_job)
    run = Path(saving["output_dir"])
    assert checkpoints(run) == {} and "checkpoint 2" not in held.told and held.told[-1] == "end"
    assert 3 <= metrics(run)[-1]["step"] <= 4
    monkeypatch.undo()
    launch(saving, write_job, resume=True)


def test_a_run_goes_on_beside_a_full_disk_if_told_to(
    saving: dict[str, Any], write_job: WriteJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saving["train"]["on_save_error"] = "continue"
    no_room(monkeypatch, 2)
    Held(monkeypatch, 2)
    run = launch(saving, write_job)
    assert {name.split("/")[1] for name in checkpoints(run)} == {"step-00000004", "step-00000006"}
    said = capsys.readouterr().err
    assert said.count("cannot write") == 1 and "step-00000002" in said and "the run goes on" in said


def test_the_newest_are_kept_and_a_resume_may_wait(
    saving: dict[str, Any], write_job: WriteJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving["train"]["keep_last"] = 1
    run = launch(saving, write_job)
    assert [folder.name for folder in (run / "checkpoints").iterdir()] == ["step-00000006"]
    lock = json.loads((run / "lock.json").read_text())
    assert lock["job"]["train"]["async_save"] is True
    saving["train"]["async_save"] = False
    launch(saving, write_job, resume=True)
