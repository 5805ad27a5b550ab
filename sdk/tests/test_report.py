"""``ptsdk report``: what a run's files say became of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ptsdk.checkpoint.summary import Curve, summarise
from ptsdk.cli.main import main
from ptsdk.cli.report import drawn
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.testing.jobs import job_values, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    registry = Registry(scan())
    options = {"steps": 6, "batch_size": 2, "save_every": 3, "validate_every": 3}
    values = job_values(folder, registry, train=options)
    values["data"]["validation"] = values["data"]["train"]
    train(values, registry, folder)
    return folder / "run"


def reported(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["report", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_a_run_is_told_as_its_files_have_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    code, out, _ = reported(capsys, run, "--json")
    assert code == 0
    (told,) = json.loads(out)
    assert told["finished"] is True and (told["step"], told["total_steps"]) == (6, 6)
    assert told["checkpoints"] == [6, 3]
    loss = told["curves"]["loss"]
    assert (loss["first"], loss["last"], loss["least"]) == (losses[0], losses[-1], min(losses))
    assert losses[loss["least_step"] - 1] == min(losses) and losses[loss["most_step"] - 1] == max(losses)
    assert list(told["curves"])[:2] == ["loss", "val/loss"]
    assert told["tokens"] == max(row.get("tokens_total", 0) for row in rows)
    assert told["parts"]["method"] == "sft" and told["batch_size"] == 2
    page = reported(capsys, run)[1]
    assert page.startswith(f"# {run}\n\n* finished: step 6 of 6, ")
    assert f"{losses[-1]:.4g}" in page and "checkpoints: 6, 3" in page


def test_a_run_that_was_killed_is_not_finished(run: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(run, killed)
    shutil.rmtree(killed / "final")
    assert not summarise(killed).finished
    lines = (killed / "metrics.jsonl").read_text().splitlines(keepends=True)
    (killed / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] < 5))
    found = summarise(killed)
    assert (found.step, found.total_steps, found.finished) == (4, 6, False)
    (killed / "metrics.jsonl").unlink()
    assert summarise(killed).step == 0 and summarise(killed).curves == {}
    assert main(["report", str(killed)]) == 0


def test_a_run_without_that_logger_is_finished_all_the_same(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = tmp_path / "silent"
    shutil.copytree(run, silent)
    (silent / "metrics.jsonl").unlink()
    assert summarise(silent).finished
    assert "no metrics: the job has no logger that writes them" in reported(capsys, silent)[1]


def test_runs_beside_each_other_show_what_differs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    lock: dict[str, Any] = json.loads((other / "lock.json").read_text())
    lock["job"]["optimizer"] |= {"use": "ptsdk/adamw", "lr": 0.5}
    (other / "lock.json").write_text(json.dumps(lock))
    code, out, _ = reported(capsys, run, other)
    head, _, first, second = out.splitlines()
    assert code == 0
    assert [cell.strip() for cell in head.split("|")[1:4]] == ["run", "optimizer", "lr"]
    assert [cell.strip() for cell in first.split("|")[1:3]] == [str(run), "sgd"]
    assert [cell.strip() for cell in second.split("|")[1:4]] == [str(other), "adamw", "0.5"]


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = reported(capsys, tmp_path)
    assert code == 2 and "a run leaves it in output_dir" in err
    torn = tmp_path / "torn"
    shutil.copytree(run, torn)
    with (torn / "metrics.jsonl").open("a") as file:
        file.write("{half a row\n")
    code, _, err = reported(capsys, torn)
    lines = len((torn / "metrics.jsonl").read_text().splitlines())
    assert code == 2 and f"metrics.jsonl:{lines}: not a row of metrics" in err


def test_a_page_is_written_once(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.md"
    assert reported(capsys, run, "--out", out)[:2] == (0, "")
    assert out.read_text().startswith(f"# {run}\n")
    code, _, err = reported(capsys, run, "--out", out)
    assert code == 2 and "exists already" in err


def test_a_curve_is_drawn_from_its_least_to_its_most() -> None:
    assert drawn([3.0, 2.0, 1.0]) == "█▅▁"
    assert drawn([1.0, 1.0]) == "▁▁"
    assert drawn([float(i) for i in range(1000)], width=8) == "▁▂▃▄▅▆▇█"
    curve = Curve.of([1, 2, 3, 4], [2.0, 1.0, 1.0, 2.0])
    assert (curve.least_step, curve.most_step) == (2, 1)


def test_a_number_that_is_none_is_left_out(run: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(run, odd)
    row = {"step": 6, "reward/mean": float("nan"), "note": "text", "fine": True}
    with (odd / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    assert {"reward/mean", "note", "fine"}.isdisjoint(summarise(odd).curves)
