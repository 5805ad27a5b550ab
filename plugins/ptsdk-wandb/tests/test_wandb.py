"""Runs beside the real library, offline: what it wrote is read back from its own files."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ptsdk.errors import RunError, UserError
from ptsdk.job.load import make_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from ptsdk.train.signals import Stopped

SECRET = "a-key-of-someone"
PARTS = '''
import os, signal
from ptsdk.contracts.events import Callback

class Interrupt(Callback):
    """As if someone pressed stop in step ``at``, once."""

    at: int
    note: str = ""

    def step(self, run, step, metrics):
        if step == self.at and not (flag := run.output_dir / "interrupted").exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGTERM)
'''


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(scan())


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_X_DISABLE_STATS", "true")


@pytest.fixture(scope="module", autouse=True)
def service() -> Iterator[None]:
    yield
    import wandb

    wandb.teardown()


Train = Callable[..., Path]


@pytest.fixture
def train(registry: Registry, tmp_path: Path) -> Train:
    (tmp_path / "parts.py").write_text(PARTS)
    rows = [{"prompt": f"row {i} ", "completion": "and what comes after"[: 4 + i % 9]} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(
        out: str = "demo", resume: bool = False, lr: float = 1e-3, stop: int = 0, note: str = "", **logger: Any
    ) -> Path:
        data = {"use": "instruct", "path": "rows.jsonl"}
        job = {
            "api": 1,
            "model": {"use": "tiny", "config": {"hidden_size": 16, "intermediate_size": 32}},
            "tokenizer": "bytes",
            "data": {"train": data, "validation": data, "max_length": 64},
            "method": "sft",
            "optimizer": {"use": "adamw", "lr": lr},
            "callbacks": [{"use": "./parts.py:Interrupt", "at": stop, "note": note}],
            "loggers": ["jsonl", *([{"use": "wandb", **logger}] if logger else [])],
            "train": {"steps": 6, "batch_size": 4, "validate_every": 3, "seed": 1},
            "output_dir": str(tmp_path / out),
        }
        run_job(make_job(job, registry, tmp_path), registry, resume=resume)
        return tmp_path / out

    return run


def records(folder: Path) -> list[Any]:
    """All records of a run that is over; wandb's own process writes the last of them a moment later."""
    (file,) = folder.glob("run-*.wandb")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = parse(file.read_bytes()) if file.stat().st_size else []
        if any(kind(record) == "exit" for record in found):
            return found
        time.sleep(0.05)
    raise AssertionError("the run never ended")


def parse(data: bytes) -> list[Any]:
    """The records of a .wandb file: a log of LevelDB's format, 7 bytes in front, of protobufs."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, whole, found = 7, b"", []
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, part = struct.unpack("<IHB", data[place : place + 7])
        whole = (b"" if part in (1, 2) else whole) + data[place + 7 : place + 7 + size]
        place += 7 + size
        if part in (1, 4) and place <= len(data):
            found.append(Record.FromString(whole))
    return found


def kind(record: Any) -> str:
    return str(record.WhichOneof("record_type"))


def folders(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob("offline-run-*"))


def begun(folder: Path) -> Any:
    return next(record.run for record in records(folder) if kind(record) == "run")


def config(folder: Path) -> dict[str, Any]:
    return {item.key: json.loads(item.value_json) for item in begun(folder).config.update if item.key != "_wandb"}


def history(folder: Path) -> list[dict[str, Any]]:
    rows = [record.history.item for record in records(folder) if kind(record) == "history"]
    read = [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in row} for row in rows]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in read]


def exit_code(folder: Path) -> int:
    return next(record.exit.exit_code for record in records(folder) if kind(record) == "exit")


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_plugin_loads_neither_torch_nor_wandb() -> None:
    code = (
        "import sys, ptsdk_wandb.plugin as p; p.ptsdk_loggers();"
        "assert not {'torch', 'pydantic', 'wandb'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_offline(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTE", SECRET)
    run = train(mode="offline", project="words", tags=["a", "b"], group="g", notes="${env:NOTE}")
    (folder,) = folders(run)
    record = begun(folder)
    assert (record.project, record.display_name, record.run_group) == ("words", "demo", "g")
    assert list(record.tags) == ["a", "b"] and record.notes == SECRET  # told to wandb on purpose
    assert history(folder) == metrics(run)
    assert "val/loss" in history(folder)[-1] and history(folder)[-1]["step"] == 6
    assert config(folder) == json.loads((run / "lock.json").read_text())["job"]
    assert config(folder)["optimizer"]["lr"] == 1e-3 and config(folder)["loggers"][1]["notes"] == "***"
    assert exit_code(folder) == 0


def test_rows_are_plotted_over_our_steps(train: Train) -> None:
    (folder,) = folders(train(mode="offline"))
    defined = [record.metric for record in records(folder) if kind(record) == "metric"]
    over = {metric.glob_name or metric.name: metric.step_metric for metric in defined}
    assert over["*"] == "step" and begun(folder).project == "ptsdk"


def test_a_secret_of_the_environment_reaches_no_file(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTE", SECRET)
    monkeypatch.setattr(sys, "argv", ["ptsdk", "run", "job.yaml", f"loggers.1.token={SECRET}"])  # wandb looks there
    run = train(mode="offline", note="see ${env:NOTE}")
    assert config(folders(run)[0])["callbacks"][0]["note"] == "see ***"
    files = [file for file in (run / "wandb").rglob("*") if file.is_file()]
    assert files and not [file for file in files if SECRET.encode() in file.read_bytes()]


def test_a_resumed_run_keeps_its_id(train: Train) -> None:
    with pytest.raises(Stopped):
        train(mode="offline", stop=2)
    run = train(mode="offline", stop=2, resume=True)
    first, second = folders(run)
    assert begun(first).run_id == begun(second).run_id
    assert [row["step"] for row in history(first)] == [1, 2]
    assert [row["step"] for row in history(second)] == [3, 3, 4, 5, 6, 6]
    assert (exit_code(first), exit_code(second)) == (1, 0)
    assert "preempting" in {kind(record) for record in records(first)}


def test_two_runs_are_two(train: Train) -> None:
    ids = {begun(folders(train(out, mode="offline"))[0]).run_id for out in ("one", "two")}
    assert len(ids) == 2


def test_a_failed_run_is_told_so(train: Train, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        train(mode="offline", lr=1e30)
    assert exit_code(folders(tmp_path / "demo")[0]) == 1


def test_training_does_not_notice(train: Train) -> None:
    import wandb

    outer = wandb.init(mode="offline", dir=train("outer"))
    alone, beside = train("alone"), train("beside", mode="offline")
    assert wandb.run is outer
    outer.log({"x": 1})
    outer.finish()
    states = [json.loads((run / "checkpoints/step-00000006/state.json").read_text()) for run in (alone, beside)]
    assert "rng" in states[0]["state"] and states[1]["state"].pop("listeners")
    assert {**states[0]["state"], "listeners": None} == {**states[1]["state"], "listeners": None}
    assert [row.get("loss") for row in metrics(alone)] == [row.get("loss") for row in metrics(beside)]


def test_modes_are_checked(train: Train) -> None:
    with pytest.raises(UserError, match="mode"):
        train(mode="of-line")
