"""Runs beside the real library and its SQLite store, read back through a client of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from ptsdk.errors import RunError
from ptsdk.job.load import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from ptsdk.train.signals import Stopped
from ptsdk_mlflow.logger import Begun, flat, parameter_name

SECRET = "a-key-of-someone"
STEPS = 6
PARTS = '''
import os, signal
from ptsdk.contracts.events import Callback

class Interrupt(Callback):
    """Sends itself ``signal`` in step ``at``, once."""

    at: int = 0
    signal: str = "SIGTERM"
    note: str = ""

    def step(self, run, step, metrics):
        if step == self.at and not (flag := run.output_dir / "interrupted").exists():
            flag.touch()
            os.kill(os.getpid(), getattr(signal, self.signal))
'''


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(scan())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: to make one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/runs.db"


@pytest.fixture
def client(store: str) -> MlflowClient:
    return MlflowClient(tracking_uri=store)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


WriteJob = Callable[..., Path]


@pytest.fixture
def write_job(tmp_path: Path, store: str) -> WriteJob:
    (tmp_path / "parts.py").write_text(PARTS)
    rows = [{"prompt": f"row {i} ", "completion": "and what comes after"[: 4 + i % 9]} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(out: str = "demo", lr: float = 1e-3, logger: dict[str, Any] | None = None, **interrupt: Any) -> Path:
        data = {"use": "instruct", "path": "rows.jsonl"}
        where = {"tracking_uri": store, "experiment": tmp_path.name} if logger is None else logger
        job = {
            "api": 1,
            "model": {"use": "tiny", "config": {"hidden_size": 16, "intermediate_size": 32}},
            "tokenizer": "bytes",
            "data": {"train": data, "validation": data, "max_length": 64},
            "method": "sft",
            "optimizer": {"use": "adamw", "lr": lr},
            "callbacks": [{"use": "./parts.py:Interrupt", **interrupt}],
            "loggers": ["jsonl", {"use": "mlflow", **where}] if "none" not in where else ["jsonl"],
            "train": {"steps": STEPS, "batch_size": 4, "validate_every": 3, "save_every": 2, "seed": 1},
            "output_dir": str(tmp_path / out),
        }
        path = tmp_path / f"{out}.yaml"
        path.write_text(yaml.safe_dump(job))
        return path

    return write


def train(path: Path, registry: Registry, resume: bool = False) -> Path:
    job = load_job(path, [], registry)
    run_job(job, registry, resume=resume)
    return job.output_dir


def runs(client: MlflowClient, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id]))


def history(client: MlflowClient, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, metric)]


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_plugin_loads_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, ptsdk_mlflow.plugin as p; p.ptsdk_loggers();"
        "assert not {'torch', 'pydantic', 'mlflow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_in_the_store_of_the_working_directory(
    write_job: WriteJob, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTE", SECRET)
    folder = train(write_job(logger={}, note="see ${env:NOTE}"), registry)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = runs(client, "ptsdk")
    assert (run.info.run_name, run.info.status) == ("demo", "FINISHED")
    rows = metrics(folder)
    for name in ("loss", "grad_norm", "lr", "tokens", "epoch", "tokens_per_second"):
        assert history(client, run, name) == [(row["step"], row[name]) for row in rows if "loss" in row]
    assert history(client, run, "val/loss") == [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row]
    params = run.data.params
    assert params["optimizer.lr"] == "0.001" and params["method.use"] == "ptsdk/sft" and params["quantizer"] == "null"
    assert params["data.train.0.path"] == "rows.jsonl" and params["callbacks.0.note"] == "see ***"
    assert len(params) == len(list(flat("", json.loads((folder / "lock.json").read_text())["job"])))
    (artifact,) = client.list_artifacts(run.info.run_id)
    stored = Path(run.info.artifact_uri.removeprefix("file://")) / artifact.path
    assert stored.read_bytes() == (folder / "lock.json").read_bytes()
    assert stored.is_relative_to(tmp_path / "mlruns")
    assert SECRET.encode() not in (tmp_path / "mlflow.db").read_bytes()


def test_what_mlflow_is_set_to_is_used(
    write_job: WriteJob, registry: Registry, client: MlflowClient, store: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    train(write_job(logger={"experiment": "by environment", "run_name": "called"}), registry)
    (run,) = runs(client, "by environment")
    assert run.info.run_name == "called" and not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("death", ["SIGKILL", "SIGTERM"])
def test_a_resumed_run_goes_on_in_the_same(
    write_job: WriteJob, registry: Registry, client: MlflowClient, tmp_path: Path, death: str
) -> None:
    path = write_job(at=5, signal=death)  # one step beyond the checkpoint of step 4
    command = [sys.executable, "-m", "ptsdk", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == (-signal.SIGKILL if death == "SIGKILL" else 143), done.stderr
    (before,) = runs(client, tmp_path.name)
    assert before.info.status == ("RUNNING" if death == "SIGKILL" else "KILLED")
    assert {4, 5} >= {history(client, before, "loss")[-1][0]}
    folder = train(path, registry, resume=True)
    (after,) = runs(client, tmp_path.name)
    assert after.info.run_id == before.info.run_id and after.info.status == "FINISHED"
    rows = metrics(folder)
    assert history(client, after, "loss") == [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert [step for step, _ in history(client, after, "loss")] == list(range(1, STEPS + 1))
    assert [step for step, _ in history(client, after, "val/loss")] == [3, 6]
    assert after.data.params == before.data.params


def test_a_failed_run_is_told_so(write_job: WriteJob, registry: Registry, client: MlflowClient, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        train(write_job(lr=1e30), registry)
    (run,) = runs(client, tmp_path.name)
    assert run.info.status == "FAILED"


def test_a_run_that_is_gone_is_begun_anew(
    write_job: WriteJob, registry: Registry, client: MlflowClient, tmp_path: Path, store: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = write_job(at=3)
    with pytest.raises(Stopped):
        train(path, registry)
    job = yaml.safe_load(path.read_text())
    job["loggers"][1]["tracking_uri"] = store.replace("runs.db", "others.db")
    path.write_text(yaml.safe_dump(job))
    train(path, registry, resume=True)
    assert "a new one begins" in capsys.readouterr().err
    others = MlflowClient(tracking_uri=job["loggers"][1]["tracking_uri"])
    (run,) = runs(others, tmp_path.name)
    assert [step for step, _ in history(others, run, "loss")] == [4, 5, 6]


def test_training_does_not_notice(write_job: WriteJob, registry: Registry, client: MlflowClient, store: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(store)
    try:
        with mlflow.start_run() as outer:
            beside = train(write_job("beside"), registry)
            assert mlflow.active_run().info.run_id == outer.info.run_id
        assert not client.get_run(outer.info.run_id).data.metrics
    finally:
        mlflow.set_tracking_uri(None)
    without = train(write_job("without", logger={"none": 1}), registry)
    states = [
        json.loads((run / f"checkpoints/step-{STEPS:08}/state.json").read_text())["state"] for run in (without, beside)
    ]
    assert "rng" in states[0] and states[1]["listeners"]
    assert {**states[0], "listeners": None} == {**states[1], "listeners": None}
    assert [row.get("loss") for row in metrics(without)] == [row.get("loss") for row in metrics(beside)]


def test_many_parameters_are_logged_once(client: MlflowClient) -> None:
    experiment = client.create_experiment("parameters")
    run_id = client.create_run(experiment).info.run_id
    params = {f"p{i}": "x" * 10 for i in range(250)}
    Begun(client, run_id).log_params(params)
    assert client.get_run(run_id).data.params == params
    Begun(client, run_id, params=frozenset(params)).log_params(params | {"p0": "another", "new": "y"})
    assert client.get_run(run_id).data.params == params | {"new": "y"}


def test_a_job_becomes_flat() -> None:
    job = {"a": {"b": 1e-5, "c": [1, {"d": None}], "e": [], "f": {}}, "g": "text", "h": True}
    assert dict(flat("", job)) == {
        "a.b": "1e-05", "a.c.0": "1", "a.c.1.d": "null", "a.e": "[]", "a.f": "{}", "g": "text", "h": "true",
    }  # fmt: skip
    assert parameter_name("data.columns.What? (x)/y") == "data.columns.What_ _x_/y"
