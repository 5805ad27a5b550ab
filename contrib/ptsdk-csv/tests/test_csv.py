"""What a real run leaves, and rows that do not have the columns of those before."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ptsdk
from ptsdk.testing import LoggerSuite
from ptsdk_csv.logger import Csv


class TestConforms(LoggerSuite):
    """The suite of the kind."""

    component = "csv"


JOB = Path(__file__).parents[1] / "example" / "job.yaml"


def rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_the_numbers_of_metrics_jsonl(tmp_path: Path) -> None:
    data = f"data.validation={{use: text, path: {JOB.parent / 'train.jsonl'}}}"
    output = tmp_path / "run"
    ptsdk.run(JOB, overrides=[f"output_dir={output}", data, "train.validate_every=2"])
    logged = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    for name, marks in (("steps.csv", "loss"), ("validations.csv", "val/loss")):
        expected = [row for row in logged if marks in row]
        found = [{key: float(value) for key, value in row.items()} for row in rows(output / name)]
        assert found == [pytest.approx(row) for row in expected]
        assert expected


def test_a_metric_that_comes_later_gets_a_column(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(output_dir=tmp_path)
    for number, row in enumerate([{"step": 1, "a,b": 2.5}, {"step": 2, "c": 0.5}, {"step": 3, "a,b": float("nan")}]):
        Csv(delimiter=";").step(run, number, row)  # each time a new object, as after a resume
    assert rows(tmp_path / "steps.csv", ";") == [
        {"step": "1", "a,b": "2.5", "c": ""},
        {"step": "2", "a,b": "", "c": "0.5"},
        {"step": "3", "a,b": "nan", "c": ""},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["steps.csv"]
