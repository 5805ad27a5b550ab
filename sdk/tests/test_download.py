"""``ptsdk download``: where a model lies, or a copy of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptsdk.cli.main import main
from ptsdk.testing.checkpoints import tiny_checkpoint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_checkpoint(tmp_path / "model")
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_it_tells_where_the_model_is(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--safe", "download", str(model)]) == 0
    assert capsys.readouterr().out == f"{model}\n"


def test_a_copy_is_the_same_files(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "linked.json").symlink_to("config.json")
    out = tmp_path / "made" / "copy"
    assert main(["--safe", "download", str(model), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(out) and told["architectures"] == ["TinyForCausalLM"]
    assert contents(out) == contents(model) and not (out / "linked.json").is_symlink()
    assert told["bytes"] == sum(map(len, contents(out).values()))


def test_nothing_is_written_where_something_is_wrong(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, out = tmp_path / "there", tmp_path / "out"
    there.mkdir()
    for arguments, told in (
        ([str(model), "--out", str(there)], "exists already"),
        ([str(tmp_path / "nowhere"), "--out", str(out)], "does not exist"),
        (["s3://bucket/model", "--out", str(out)], "s3"),
        ([f"{model}#sha256={'0' * 64}", "--out", str(out)], "names a folder"),
    ):
        assert main(["--safe", "download", *arguments]) == 2
        assert told in capsys.readouterr().err
    assert not out.exists() and not any(there.iterdir())
