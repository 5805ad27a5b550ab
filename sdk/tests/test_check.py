"""``ptsdk check``: the document, the exit codes, and that nothing is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptsdk.cli.main import main

OVERRIDES = [("override", 1, "data.train.path"), ("override", 1, "method")]
JOB: dict[str, Any] = {
    "api": 1,
    "model": {"use": "tiny", "config": {"hidden_size": 32}},
    "tokenizer": "bytes",
    "data": {"train": {"use": "instruct", "path": "train.jsonl"}},
    "method": "sft",
    "output_dir": "run",
}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return Path("job.yaml")


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["--safe", "check", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_sound_job(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = check(capsys, str(job), "optimizer.lr=1e-5", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert list(document) == ["ok", "errors", "resolved"]
    assert document["ok"] is True
    assert document["errors"] == []
    assert document["resolved"]["optimizer"] == {
        "use": "ptsdk/adamw", "lr": 1e-5, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0,
        "implementation": "auto",
    }  # fmt: skip
    assert document["resolved"]["train"]["keep_last"] == 2


def test_what_a_person_is_shown_is_a_job(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = check(capsys, str(job))
    assert code == 0
    assert "no fault" in err
    Path("again.yaml").write_text(out)
    assert check(capsys, "again.yaml")[:2] == (0, out)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optimizer.lr=x"], [("override", 1, "optimizer.lr")]),
        (
            ["data.train.path=none.jsonl", "method=nope"],
            [("override", 1, "data.train.path"), ("override", 1, "method")],
        ),
        (["bad"], [("override", 1, "")]),
    ],
)
def test_a_faulty_job(
    job: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], expected: list[tuple[str, int, str]]
) -> None:
    code, out, err = check(capsys, str(job), *overrides, "--json")
    document = json.loads(out)
    assert (code, err) == (2, "")
    assert (document["ok"], document["resolved"]) == (False, {})
    assert sorted((e["file"], e["line"], e["path"]) for e in document["errors"]) == expected
    assert all(set(e) == {"file", "line", "path", "message", "hint"} and e["message"] for e in document["errors"])
    code, out, err = check(capsys, str(job), *overrides)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert all(path in err for _, _, path in expected)


def test_the_line_of_a_typo(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job.write_text(job.read_text().replace("method:", "metod:"))
    document = json.loads(check(capsys, str(job), "--json")[1])
    assert {(e["file"], e["line"], e["path"]) for e in document["errors"]} == {
        ("job.yaml", 11, "metod"), ("job.yaml", 1, "method"),
    }  # fmt: skip


@pytest.mark.parametrize("text", [None, "", "a: [", "- x\n"])
def test_no_job_at_all_has_the_same_shape(job: Path, capsys: pytest.CaptureFixture[str], text: str | None) -> None:
    if text is not None:
        Path("other.yaml").write_text(text)
    code, out, err = check(capsys, "other.yaml", "--json")
    document = json.loads(out)
    assert (code, err) == (2, "")
    assert document["ok"] is False
    (error,) = document["errors"]
    assert error["file"] == "other.yaml"
    assert isinstance(error["line"], int)


def test_secrets_are_not_shown(job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "hunter2")
    for arguments in (["output_dir=x/${env:KEY}"], ["method=${env:KEY}"], ["optimizer.lr=${env:KEY}"]):
        assert "hunter2" not in "".join(map(str, check(capsys, str(job), *arguments, "--json")))


def test_as_a_process_it_writes_nothing(job: Path) -> None:
    before = sorted(os.listdir())
    for extra, code in ([], 0), (["train.sed=1"], 2):
        done = subprocess.run(
            [sys.executable, "-m", "ptsdk", "--safe", "check", str(job), *extra, "--json"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code
        assert json.loads(done.stdout)["ok"] is (code == 0)
        assert "Traceback" not in done.stderr
    assert sorted(os.listdir()) == before
