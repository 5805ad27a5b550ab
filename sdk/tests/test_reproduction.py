"""A lock repeats a run to the bit or refuses; ``ptsdk diff`` says why two runs differ."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from ptsdk.checkpoint.environment import required_dists
from ptsdk.checkpoint.reproduction import diff_runs, locked_differences, read_lock
from ptsdk.cli.main import main
from ptsdk.errors import UserError

JOB = """\
api: 1
model: {use: tiny, config: {hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1}}
tokenizer: bytes
data: {train: {use: instruct, path: train.jsonl}, max_length: 32}
method: sft
loggers: [jsonl]
optimizer: {use: adamw, lr: 1e-2}
train: {steps: 3, batch_size: 2}
output_dir: first
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run ``first``."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [{"prompt": f"a{i} ", "completion": "b" * (i + 1)} for i in range(8)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "job.yaml").write_text(JOB)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["--safe", "run", "job.yaml"]) == 0
    return folder


@pytest.fixture
def folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(runs)
    return runs


def weights(run: str) -> bytes:
    return (Path(run) / "final" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("job", [["job.yaml"], []], ids=["job", "lock"])
def test_a_lock_repeats_its_run(folder: Path, job: list[str], tmp_path: Path) -> None:
    again = str(tmp_path / "again")
    assert main(["--safe", "run", *job, f"output_dir={again}", "--locked", "first/lock.json"]) == 0
    assert weights(again) == weights("first")
    assert main(["--safe", "diff", "first", again]) == 0


def test_the_job_of_a_lock_finds_its_data_from_anywhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--safe", "run", "--locked", str(folder / "first" / "lock.json"), "output_dir=again"]) == 0


def test_what_differs_from_the_lock_is_listed_and_nothing_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "again"
    overrides = [f"output_dir={other}", "optimizer.lr=1e-3", "train.seed=1", "train.micro_batch_size=1"]
    assert main(["--safe", "run", "job.yaml", *overrides, "--locked", "first/lock.json"]) == 2
    err = capsys.readouterr().err
    for line in ("optimizer.lr: 0.01 in the lock, 0.001 here", "train.seed: 0 in", "train.micro_batch_size: 2 in"):
        assert line in err
    assert not other.exists()


def changed(lock: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    lock = copy.deepcopy(lock)
    *parents, last = path.split("/")
    here = lock
    for key in parents:
        here = here[key]
    here[last] = value
    return lock


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("dists/torch/version", "1.0"),
        ("dists/numpy/version", "1.0"),
        ("dists/tokenizers/record", "0" * 64),
        ("sources/ptsdk", "0" * 64),
        ("data/train", ["0" * 64]),
        ("template", "0" * 64),
        ("tokenizer", "0" * 64),
        ("model", "0" * 64),
        ("environment/threads", 99),
        ("environment/device", "another"),
        ("environment/cuda", "99"),
        ("files", {"./x.py:Y": "0" * 64}),
        ("total_steps", 4),
    ],
)
def test_each_part_of_a_lock_is_held(folder: Path, path: str, value: Any) -> None:
    lock = read_lock(Path("first/lock.json"))
    (line,) = locked_differences(changed(lock, path, value), lock)
    assert path.replace("/", ".").removesuffix(".0") in line


@pytest.mark.parametrize(
    ("path", "value"),
    [("job/output_dir", "x"), ("base", "/elsewhere"), ("dists/pytest/version", "0"), ("job/train/save_every", 1)],
)
def test_what_decides_no_weight_is_not(folder: Path, path: str, value: Any) -> None:
    lock = read_lock(Path("first/lock.json"))
    assert locked_differences(changed(lock, path, value), lock) == []


def test_a_lock_holds_what_a_run_is_made_of(folder: Path) -> None:
    lock = read_lock(Path("first/lock.json"))
    assert set(lock) == {
        "format", "job", "files", "used", "sources", "dists", "data", "model", "frozen", "tokenizer", "template",
        "seed", "total_steps", "environment", "base",
    }  # fmt: skip
    assert lock["dists"]["numpy"]["version"] and len(lock["dists"]["numpy"]["record"]) == 64
    assert {"torch", "cuda", "device", "processor", "threads", "world_size"} <= set(lock["environment"])
    assert lock["job"]["train"]["micro_batch_size"] == 2  # in full


def test_a_package_stands_for_what_it_requires() -> None:
    found = required_dists(["ptsdk"])
    assert {"ptsdk", "torch", "numpy", "tokenizers"} <= set(found)
    assert found == {name: metadata.version(name) for name in found}
    assert required_dists(["no-such-package"]) == {"no-such-package": None}


def test_diff_says_what_and_where(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(tmp_path / "other")
    overrides = [f"output_dir={other}", "schedule={use: linear, warmup: 0}", "train.steps=4"]
    assert main(["--safe", "run", "job.yaml", *overrides]) == 0
    capsys.readouterr()
    assert main(["--safe", "diff", "first", other, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["first"], found["second"], found["same"]) == ("first", other, False)
    assert {d["path"]: (d["first"], d["second"]) for d in found["differences"]["job"]} == {
        "job.schedule.use": ("ptsdk/constant", "ptsdk/linear"),
        "job.train.steps": (3, 4),
        "total_steps": (3, 4),
    }
    assert not any(found["differences"][part] for part in ("versions", "data", "template", "model", "environment"))
    assert [d["path"] for d in found["without_effect"]] == ["job.output_dir"]
    # the first step has the full learning rate in both, the second has not
    assert (found["steps"], found["parting"]["step"]) == (1, 2)
    assert found["parting"]["first"].keys() == found["parting"]["second"].keys() == {"lr"}
    assert main(["--safe", "diff", "first", other]) == 1
    shown = capsys.readouterr().out
    assert "schedule.use  ptsdk/constant -> ptsdk/linear" in shown
    assert "metrics part at step 2: lr 0.01 -> 0.0075" in shown


@pytest.fixture
def pair(folder: Path, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """The run, and a copy of its lock and metrics that is changed."""

    def make(change: Callable[[dict[str, Any]], dict[str, Any]] = lambda lock: lock, rows: int | None = None) -> Any:
        lock = json.loads(Path("first/lock.json").read_text())
        (tmp_path / "lock.json").write_text(json.dumps(change(lock)))
        lines = Path("first/metrics.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "metrics.jsonl").write_text("".join(lines[:rows]))
        return Path("first"), tmp_path

    return make


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ("dists/torch/version", "versions"), ("data/train", "data"), ("template", "template"), ("model", "model"),
        ("environment/device", "environment"), ("tokenizer", "template"),
    ],
)  # fmt: skip
def test_each_difference_has_its_section(pair: Any, path: str, section: str) -> None:
    found = diff_runs(*pair(lambda lock: changed(lock, path, "other")))
    assert [part for part, differences in found.differences.items() if differences] == [section]
    assert not found.same and found.parting is None


def test_packages_that_are_not_used_are_told_apart(pair: Any) -> None:
    found = diff_runs(*pair(lambda lock: changed(lock, "dists/pytest/version", "0")))
    assert found.same
    assert [difference.path for difference in found.without_effect] == ["dists.pytest.version"]


def test_a_run_that_ended_early_parts_there(pair: Any) -> None:
    found = diff_runs(*pair(rows=2))
    assert found.parting is not None
    assert (found.steps, found.parting.step, found.parting.second) == (2, 3, None)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "job": 5}', "{" * 5, "[" * 100_000])
def test_what_is_no_lock(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lock.json").write_text(content)
    for command in (["diff", str(tmp_path), str(tmp_path)], ["run", "--locked", str(tmp_path / "lock.json")]):
        assert main(["--safe", *command]) == 2
        assert f"{tmp_path / 'lock.json'}:1: " in capsys.readouterr().err


def test_a_lock_of_another_format_and_metrics_that_are_none(pair: Any) -> None:
    with pytest.raises(UserError, match="a lock of format 2"):
        diff_runs(*pair(lambda lock: {**lock, "format": 2}))
    first, second = pair()
    (second / "metrics.jsonl").write_text('{"step": 1}\nx\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a row"):
        diff_runs(first, second)


def test_a_lock_that_hides_a_secret_needs_the_job(folder: Path, pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, other = pair(lambda lock: changed(lock, "job/output_dir", "runs/***"))
    assert main(["--safe", "run", "--locked", str(other / "lock.json")]) == 2
    assert "does not hold the secrets of its job (output_dir)" in capsys.readouterr().err


def test_a_run_needs_a_job_or_a_lock(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--safe", "run"]) == 2
    assert "JOB" in capsys.readouterr().err
