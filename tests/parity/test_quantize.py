"""``ptsdk quantize``, as transformers reads what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import ptsdk
from ptsdk.cli.main import main
from ptsdk.job.load import make_job
from ptsdk.nn.batch import Batch
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.testing.jobs import job_values
from ptsdk.train.launch import run_job
from ptsdk_qat.quantizer import Qat

SHAPE = {
    "vocab_size": 264,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma3": {"head_dim": 8, "num_key_value_heads": 2, "sliding_window": 8},
    "phi3": {"eos_token_id": 2, "pad_token_id": 0, "num_key_value_heads": 2},
}
SCHEMES = ("int8-int4", "int4", "int8")
IDS = torch.arange(3, 40)[None]


def trained(tmp_path: Path, family: str, **more: Any) -> Path:
    """The folder of a run."""
    registry = Registry(scan())
    model = {"use": family, "config": {**SHAPE, **FAMILIES[family]}, "dtype": "float32"}
    values = job_values(tmp_path, registry, model=model, train={"steps": 2}, **more)
    return run_job(make_job(values, registry, tmp_path), registry).output_dir


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["quantize", *map(str, arguments), "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def loaded(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder).eval()(IDS).logits
    return logits


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_run_gives_the_model_that_it_simulated(
    scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = {} if scheme == "int8" else {"group_size": 16}
    run = trained(tmp_path, "llama", quantizer={"use": "qat", "scheme": scheme, **groups})
    document = told(capsys, run, "--out", tmp_path / "out")
    assert (document["scheme"], document["group_size"]) == (scheme, groups.get("group_size"))
    assert document["bytes"] < 0.75 * document["bytes_before"], "embeddings stay as they are"
    simulated = ptsdk.load_model(run / "final")
    Qat(scheme=scheme, **groups).prepare(simulated)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = simulated.head().logits(simulated(Batch.pack([IDS[0].tolist()])))
    found = loaded(tmp_path / "out")[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.std().item())
    assert not torch.allclose(expected, ptsdk.logits(ptsdk.load_model(run / "final"), IDS)[0], rtol=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "out") is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_by_transformers(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    final = trained(tmp_path, family) / "final"
    document = told(capsys, final, "--out", tmp_path / "out", "--scheme", "int8")
    assert document["group_size"] is None
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert "model.layers.0.self_attn.o_proj._weight_qdata" in file.keys()  # noqa: SIM118
    close = loaded(final)
    assert 0 < (loaded(tmp_path / "out") - close).norm() < 0.05 * close.norm()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scheme", "int8", "--group-size", "32"), "int8 has one scale a row"),
        (("--group-size", "24"), "32 inputs are no multiple of group_size 24"),
        (("--scheme", "int4", "--group-size", "16"), None),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[str, ...], message: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, "llama")
    code = main(["quantize", str(run), "--out", str(tmp_path / "out"), *arguments])
    assert code == (2 if message else 0)
    assert (message or "wrote") in capsys.readouterr().err
    assert (tmp_path / "out").exists() == (message is None)


def test_another_scheme_than_that_of_the_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "llama", quantizer={"use": "qat", "scheme": "int4", "group_size": 16})
    for arguments in (["--scheme", "int8-int4"], ["--group-size", "32"]):
        assert main(["quantize", str(run), "--out", str(tmp_path / "out"), *arguments]) == 2
        assert "the run was trained for int4 in groups of 16" in capsys.readouterr().err


def test_an_adapter_is_to_be_merged_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(scan())
    base = trained(tmp_path, "llama") / "final"
    values = job_values(tmp_path, registry, train={"steps": 1}, adapter={"use": "lora", "rank": 2})
    values |= {"model": {"path": str(base)}, "output_dir": str(tmp_path / "lora")}
    run = run_job(make_job(values, registry, tmp_path), registry).output_dir
    assert main(["quantize", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "is an adapter" in capsys.readouterr().err
