"""Data that is streamed trains what data in memory trains."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptsdk.data import stream_order
from ptsdk.errors import UserError
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.conftest import metrics
from tests.faults.kills import METHODS, VOLATILE, Cell, write_data
from tests.matrix.test_grpo_processes import assert_same
from tests.matrix.test_processes import run_in_two

REGISTRY = Registry(scan())


def written(folder: Path, kind: str, name: str, rows: str = "mixture", **changed: Any) -> Path:
    job = Cell(kind, "full", 1, rows).job(folder / name, steps=12)
    job["data"] |= {"streaming": name != "memory", **changed.pop("data", {})}
    job["train"] |= changed.pop("train", {})
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(job | changed | {"output_dir": str(folder / name)}))
    return path


def run(path: Path, **options: Any) -> Path:
    return run_job(load_job(path, (), REGISTRY), REGISTRY, **options).output_dir


def bits(out: Path) -> tuple[Any, bytes]:
    log = [{key: value for key, value in row.items() if key not in VOLATILE} for row in metrics(out)]
    return log, (out / "final" / "model.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    write_data(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_a_mixture_is_the_same_bits(method: str, tmp_path: Path) -> None:
    assert bits(run(written(tmp_path, method, "streamed"))) == bits(run(written(tmp_path, method, "memory")))


@pytest.mark.parametrize("data", ["packed", "mixture"])
def test_a_resumed_run_is_the_same_bits(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a window, and after the first epoch."""
    monkeypatch.setattr(stream_order, "WINDOW", 16)
    path = written(tmp_path, "sft", "streamed", data, train={"keep_last": None})
    expected = bits(run(path))
    assert expected[0][-1]["epoch"] > 1
    checkpoints = tmp_path / "streamed" / "checkpoints"
    for last in (10, 4):
        for step in range(last + 2, 14, 2):
            shutil.rmtree(checkpoints / f"step-{step:08d}")
        assert bits(run(path, resume=True)) == expected


@pytest.mark.dist
def test_two_processes_are_one(tmp_path: Path) -> None:
    paths = {}
    for data in ("packed", "mixture"):
        one = written(tmp_path, "sft", f"{data}-one", data)
        paths[written(tmp_path, "sft", f"{data}-two", data, strategy="fsdp2")] = run(one)
    run_in_two([*paths])
    for two, one in paths.items():
        assert_same(two.with_suffix(""), one)


def test_a_bad_row_ends_the_run_where_it_is_met_or_is_left_out(tmp_path: Path, capsys) -> None:
    path = tmp_path / "text-1.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], '{"text": 5}', *lines[5:]]))
    with pytest.raises(UserError, match=r"text-1\.jsonl:5: "):
        run(written(tmp_path, "sft", "error"))
    assert metrics(tmp_path / "error")  # steps before it were taken
    run(written(tmp_path, "sft", "skip", data={"on_bad_row": "skip"}))
    assert "left out: 1 malformed (first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "changed", "message"),
    [
        ("sft", {"train": {"steps": None}}, "train.steps: how many sequences streamed data makes"),
        (
            "dpo",
            {"method": {"use": "dpo", "reference": "precompute"}},
            "log-probs of all pairs are kept in memory, but the data is streamed",
        ),
        ("sft", {"data": {"train": {"use": "text", "path": "table.csv"}}}, "streaming reads local JSONL files"),
    ],
)
def test_what_cannot_be_streamed_is_refused(
    method: str, changed: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table.csv").write_text("text\nabc\n")
    monkeypatch.setattr("ptsdk.train.assemble.build_policy", None)  # nothing of the model is made
    with pytest.raises(UserError, match=message):
        run(written(tmp_path, method, "refused", **changed))
    assert not (tmp_path / "refused").exists()


def test_a_resume_with_other_streaming_is_refused(tmp_path: Path) -> None:
    run(written(tmp_path, "sft", "memory"))
    path = written(tmp_path, "sft", "streamed", output_dir="x")
    path.write_text(path.read_text().replace("/streamed", "/memory"))
    with pytest.raises(UserError, match=r"data\.streaming: False then, True now"):
        run(path, resume=True)
