from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ptsdk.builtin.loggers import Console, Jsonl, describe, duration
from ptsdk.train.events import RunEventBus

ROW = {"step": 1, "epoch": 0.5, "loss": 1.23456, "lr": 2e-4, "tokens": 10, "tokens_per_second": 1234.5}


def new_run(tmp_path: Any, total: int = 25, step: int = 0) -> Any:
    return SimpleNamespace(
        scratch={}, output_dir=tmp_path / "run", total_steps=total, progress=SimpleNamespace(step=step)
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(bus: RunEventBus, run: Any, steps: range) -> None:
    bus.run_start(run)
    for step in steps:
        bus.step(run, step, {**ROW, "step": step})
    bus.validation(run, steps[-1], {"step": steps[-1], "epoch": 1.0, "val/loss": 0.75})
    bus.run_end(run, None)


def test_jsonl_is_on_disk_when_a_step_ends_and_goes_on_after_a_resume(tmp_path):
    bus, run = RunEventBus([Jsonl()]), new_run(tmp_path)
    file = tmp_path / "run" / "metrics.jsonl"
    bus.run_start(run)
    bus.step(run, 1, ROW)
    assert json.loads(file.read_text()) == ROW
    bus.run_end(run, None)
    assert not run.scratch
    drive(bus, new_run(tmp_path, step=1), range(2, 4))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 3]
    assert rows[-1] == {"step": 3, "epoch": 1.0, "val/loss": 0.75}


def test_numbers_that_json_has_no_word_for_become_null(tmp_path):
    bus, run = RunEventBus([Jsonl()]), new_run(tmp_path)
    bus.run_start(run)
    bus.step(run, 1, {"step": 1, "loss": math.nan, "x": math.inf})
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 1, "loss": null, "x": null}\n'


def test_without_a_terminal_there_is_a_line_every_so_many_steps(tmp_path, capsys):
    drive(RunEventBus([Console(every=10)]), new_run(tmp_path), range(1, 26))
    out, err = capsys.readouterr()
    assert not out
    lines = err.splitlines()
    assert [line.split()[1] for line in lines] == ["1/25", "10/25", "20/25", "25/25", "25"]
    assert lines[0].startswith("step 1/25  loss 1.2346  lr 2.00e-04  1234 tokens/s  eta 0:00:")
    assert lines[-1] == "step 25  val/loss 0.7500"


def test_a_resumed_run_shows_its_first_step_too(tmp_path, capsys):
    drive(RunEventBus([Console(every=100)]), new_run(tmp_path, step=7), range(8, 10))
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["8/25", "9"]


def test_on_a_terminal_there_is_a_bar_and_it_is_put_away(tmp_path, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    bus, run = RunEventBus([Console()]), new_run(tmp_path, total=3)
    bus.run_start(run)
    bus.step(run, 1, ROW)
    bus.validation(run, 1, {"step": 1, "val/loss": 0.75})
    bus.step(run, 2, {**ROW, "step": 2})
    bus.run_end(run, RuntimeError("ended early"))
    shown = terminal.getvalue()
    assert "2/3" in shown
    assert "loss 1.2346  lr 2.00e-04  1234 tokens/s  val 0.7500" in shown
    assert shown.rstrip("\n").endswith("\x1b[?25h")  # the cursor is back
    assert sys.stderr is terminal
    assert not run.scratch
    assert not capsys.readouterr().out


def test_a_full_disk_does_not_end_the_run(tmp_path, capsys):
    run = new_run(tmp_path)
    (tmp_path / "run").write_text("a file where the directory should be")
    drive(RunEventBus([Jsonl(), Console()]), run, range(1, 3))
    err = capsys.readouterr().err
    assert err.count("ptsdk: logger Jsonl failed in run_start: FileExistsError") == 1
    assert "step 1/25" in err


def test_only_what_a_method_reports_is_shown():
    assert describe({"loss": 1.0}) == "loss 1.0000"
    assert describe({"lr": 1e-5, "reward/mean": 0.5}) == "reward 0.5000  lr 1.00e-05"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_rich_is_loaded_by_a_terminal_alone():
    code = "import sys, ptsdk.builtin.loggers; assert 'rich.progress' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
