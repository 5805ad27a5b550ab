"""Overrides of the command line and references to the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ptsdk.job.environment import substitute
from ptsdk.job.overrides import apply_overrides
from ptsdk.job.source import Source, read_source

TEXT = """\
api: 1
method: {use: grpo, group_size: 8}
optimizer: adamw
loggers: [jsonl, {use: mlflow, experiment: a}]
data:
  train: {use: chat, path: a.jsonl}
"""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "job.yaml"
    path.write_text(TEXT)
    return read_source(path)


@pytest.mark.parametrize(
    ("override", "section", "value"),
    [
        ("method=dpo", "method", "dpo"),
        ("method={use: dpo, beta: 0.2}", "method", {"use": "dpo", "beta": 0.2}),
        ("method.group_size=4", "method", {"use": "grpo", "group_size": 4}),
        ("optimizer.lr=1e-5", "optimizer", {"use": "adamw", "lr": 1e-5}),
        ("loggers.1.experiment=b", "loggers", ["jsonl", {"use": "mlflow", "experiment": "b"}]),
        ("loggers.0.x=1", "loggers", [{"use": "jsonl", "x": 1}, {"use": "mlflow", "experiment": "a"}]),
        ("loggers.2=console", "loggers", ["jsonl", {"use": "mlflow", "experiment": "a"}, "console"]),
        ("~loggers.0", "loggers", [{"use": "mlflow", "experiment": "a"}]),
        ("data.train.path=b=c.jsonl", "data", {"train": {"use": "chat", "path": "b=c.jsonl"}}),
        ("train.steps=5", "train", {"steps": 5}),
        ("a.b.c=[1, x]", "a", {"b": {"c": [1, "x"]}}),
        ("optimizer=null", "optimizer", None),
    ],
)
def test_what_an_override_does(source: Source, override: str, section: str, value: Any) -> None:
    changed, problems = apply_overrides(source, [override])
    assert problems == []
    assert changed.values[section] == value
    assert source.values == read_source(Path(source.file)).values, "the source itself must not change"


def test_removing_a_section(source: Source) -> None:
    changed, problems = apply_overrides(source, ["~method", "~data.train.path"])
    assert problems == []
    assert "method" not in changed.values
    assert changed.values["data"] == {"train": {"use": "chat"}}


def test_later_overrides_win(source: Source) -> None:
    changed, _ = apply_overrides(source, ["method=dpo", "method.beta=1", "method.beta=2"])
    assert changed.values["method"] == {"use": "dpo", "beta": 2}
    assert changed.problem(("method", "beta"), "m").hint.endswith("`method.beta=2`)")
    assert changed.problem(("method", "use"), "m").hint.endswith("`method=dpo`)")


@pytest.mark.parametrize(
    ("override", "path", "part"),
    [
        ("lr", "", "not an override"),
        ("=5", "", "not an override"),
        ("~a=5", "", "not an override"),
        ("a..b=5", "", "not an override"),
        ("method.beta=", "method.beta", "no value"),
        ("method.beta=[1", "method.beta", "not YAML"),
        ("method.beta={a: 1, a: 2}", "method.beta.a", "duplicate"),
        ("api.x=1", "api.x", "holds no keys"),
        ("loggers.x=1", "loggers.x", "is a list"),
        ("loggers.5=x", "loggers.5", "2 items"),
        ("~schedule", "schedule", "nothing to remove"),
        ("~loggers.2", "loggers.2", "nothing to remove"),
        ("~method.beta.gamma", "method.beta.gamma", "nothing to remove"),
    ],
)
def test_what_cannot_be_overridden_is_told_and_changes_nothing(
    source: Source, override: str, path: str, part: str
) -> None:
    _, (problem,) = apply_overrides(source, [override])
    assert (problem.file, problem.line, problem.path) == ("override", 1, path)
    assert part in problem.message


def test_faults_are_placed_at_the_override_that_made_them(source: Source) -> None:
    changed, _ = apply_overrides(source, ["method=dpo", "~loggers.0"])
    assert changed.problem(("method", "beta"), "x").file == "override"
    assert changed.problem(("optimizer",), "x").line == 3
    moved = changed.problem(("loggers", 0, "experiment"), "x")
    assert (moved.file, moved.line) == (source.file, 4)


def test_environment_references() -> None:
    values = {"a": "${env:HERE}/x", "b": ["${env:NONE:-7}", 3], "c": {"d": "${env:HERE}-${env:KEY}"}}
    found, secrets, faults = substitute(values, {"HERE": "/data", "KEY": "hunter2"})
    assert found == {"a": "/data/x", "b": ["7", 3], "c": {"d": "/data-hunter2"}}
    assert secrets == {"/data": "HERE", "hunter2": "KEY"}
    assert faults == []


def test_numbers_of_the_environment_are_no_secrets() -> None:
    assert substitute({"a": "${env:N}"}, {"N": "100000"}) == ({"a": "100000"}, {}, [])


@pytest.mark.parametrize("text", ["${env:NONE}", "x ${env:NONE} y", "${env:}", "${env:A", "${env:a b}"])
def test_references_that_lead_nowhere(text: str) -> None:
    _, _, ((keys, message, hint),) = substitute({"a": [text]}, {"A": "1"})
    assert keys == ("a", 0)
    assert "NONE is not set" in message or "not a reference" in message
    assert "${env:" in hint
