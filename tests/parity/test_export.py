"""``ptsdk export``: what it writes, as transformers and PEFT read it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ptsdk.cli.main import main
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.conftest import WriteJob
from tests.parity.trl import save_checkpoint

IDS = torch.randint(3, 50, (2, 11), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def run(job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> Path:
    """A run that trained an adapter on a checkpoint beside it."""
    save_checkpoint(tmp_path / "model")
    job |= {"model": {"path": "model"}, "adapter": {"use": "dora", "rank": 2}}
    job["train"] |= {"steps": 3}
    del job["tokenizer"]
    registry = Registry(scan())
    return run_job(load_job(write_job(job), (), registry), registry).output_dir


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.float().eval()(IDS).logits
    return found


def export(*arguments: object) -> int:
    return main(["export", *map(str, arguments)])


def test_merged_is_what_peft_computes(run: Path, tmp_path: Path) -> None:
    assert export(run, "--merge", "--out", tmp_path / "merged") == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), run / "final")
    torch.testing.assert_close(logits(merged), logits(theirs), rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").get_vocab()


def test_an_adapter_is_copied_and_stays_one(run: Path, tmp_path: Path) -> None:
    assert export(run / "final", "--out", tmp_path / "copy") == 0
    for file in (run / "final").iterdir():
        assert (tmp_path / "copy" / file.name).read_bytes() == file.read_bytes()


def test_a_model_in_another_dtype(tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path / "model")
    assert export(model, "--dtype", "bfloat16", "--out", tmp_path / "small") == 0
    small, whole = (AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path / "small", model))
    assert small.dtype == torch.bfloat16
    assert all(small.state_dict()[name].equal(weight.bfloat16()) for name, weight in whole.state_dict().items())


@pytest.mark.parametrize("part", [".", "final"])
def test_another_base_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    other = save_checkpoint(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert export(run / part, "--merge", "--model", other, "--out", tmp_path / "merged") == 2
    assert "is not the model that" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
    command = ["generate", "--model", str(other), "--adapter", str(run / "final"), "--prompt", "a"]
    assert main(command) == 2
    assert "is not the model that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere", "--out", "x"), "nowhere is no folder"),
        (("{run}", "--out", "{run}"), "exists already"),
        (("{run}", "--out", "x", "--format", "onnx"), "it can be hf"),
        (("{tmp}/model", "--out", "x", "--merge"), "no adapter to merge"),
    ],
)
def test_refusals(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert export(*(word.format(run=run, tmp=tmp_path) for word in arguments)) == 2
    assert says in capsys.readouterr().err
