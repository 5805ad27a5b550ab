"""Quantised bases and quantization-aware training as whole runs, against torchao, transformers and PEFT."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ptsdk
from ptsdk.errors import UserError
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from tests.conftest import WriteJob, metrics
from tests.matrix.test_processes import run_in_two

IDS = torch.tensor([[5, 17, 101, 33, 8, 250, 76]])
LORA = {"use": "lora", "rank": 8, "alpha": 16}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny Llama as transformers saves it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=264,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def rounded(base: Path, folder: Path) -> Path:
    """A copy of ``base`` whose block weights went through torchao's NF4."""
    from torchao.quantization import NF4Tensor
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and ".layers." in name:
            weight = module.weight.detach()
            scaler_block = math.gcd(weight.numel() // 64, 256)
            module.weight.data = NF4Tensor.from_tensor(weight, 64, scaler_block).get_original_weight()
    model.save_pretrained(folder)
    return folder


def run(write_job: WriteJob, job: dict[str, Any], base: Path, out: Path, **changes: Any) -> list[float]:
    """Losses of a run of ``job`` on ``base``."""
    job = copy.deepcopy(job) | {"model": {"path": str(base)}, "output_dir": str(out), **changes}
    ptsdk.run(write_job(job, f"{out.name}.yaml"))
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def logits_in_peft(base: Path, adapter: Path) -> Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        logits: Tensor = model(IDS).logits
    return logits


def test_qlora_is_lora_over_the_weights_that_torchao_rounds(
    job: dict[str, Any], write_job: WriteJob, base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    job["train"]["steps"] = 8
    ours = run(write_job, job, base, tmp_path / "qlora", adapter=LORA, quantizer="nf4")
    theirs = run(write_job, job, rounded(base, tmp_path / "rounded"), tmp_path / "lora", adapter=LORA)
    plain = run(write_job, job, base, tmp_path / "plain", adapter=LORA)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-5, atol=1e-6)
    a, b = (load_file(tmp_path / name / "final" / "adapter_model.safetensors") for name in ("qlora", "lora"))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert ours[-1] < ours[0] - 0.3  # it learns,
    assert ours != plain and abs(ours[-1] - plain[-1]) < 0.15  # nearly as LoRA does


def test_an_adapter_of_qlora_loads_in_peft_on_the_unquantised_base(
    job: dict[str, Any], write_job: WriteJob, base: Path, tmp_path: Path
) -> None:
    run(write_job, job, base, tmp_path / "run", adapter=LORA, quantizer="nf4")
    final = tmp_path / "run" / "final"
    with torch.no_grad():
        ours = ptsdk.logits(ptsdk.load_model(str(base), adapter=str(final)), IDS)
        untrained = ptsdk.logits(ptsdk.load_model(str(base)), IDS)
    torch.testing.assert_close(ours, logits_in_peft(base, final), rtol=1e-4, atol=1e-4)
    assert (ours - untrained).abs().max() > 1e-2


@pytest.mark.parametrize("adapter", [{"use": "lora"}, {"use": "dora"}, {"use": "lora", "targets": ["q_proj"]}])
def test_merging_gives_the_unpacked_base_plus_the_update(base: Path, tmp_path: Path, adapter: dict[str, Any]) -> None:
    """Against PEFT's merge over the weights that torchao rounded; layers without an adapter are unpacked too."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from ptsdk.checkpoint.sources import open_checkpoint
    from ptsdk.checkpoint.weights import base_tensors, build_on_meta, fill
    from ptsdk_llama.model import Llama
    from ptsdk_lora.adapter import Dora, Lora
    from ptsdk_torchao.quantizers import NF4

    checkpoint = open_checkpoint(str(base), tmp_path, Registry(scan()))
    model = build_on_meta(Llama(path=str(base)), checkpoint.config, torch.float32)
    NF4().prepare(model)
    options = {"rank": 4, "alpha": 8, **{k: v for k, v in adapter.items() if k != "use"}}
    low_rank = (Dora if adapter["use"] == "dora" else Lora).model_validate(options)
    low_rank.apply(model)
    names = [name for name, _ in model.named_parameters() if not low_rank.own(name)]
    fill(model, base_tensors(model, names, checkpoint, 0), torch.device("cpu"), torch.float32)
    low_rank.init(model, 0)
    own = {name: p for name, p in model.named_parameters() if low_rank.own(name)}
    torch.manual_seed(1)
    for name, parameter in own.items():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    low_rank.save({name: p.detach() for name, p in own.items()}, tmp_path / "adapter", None)
    theirs = AutoModelForCausalLM.from_pretrained(rounded(base, tmp_path / "rounded"))
    merged = PeftModel.from_pretrained(theirs, tmp_path / "adapter").merge_and_unload().state_dict()
    torch.testing.assert_close(low_rank.merged(model), dict(merged), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adapter", ["full", LORA], ids=["full", "lora"])
def test_qat_trains_rounded_and_leaves_plain_weights(
    job: dict[str, Any], write_job: WriteJob, base: Path, tmp_path: Path, adapter: Any
) -> None:
    from transformers import AutoModelForCausalLM

    job["optimizer"] = {"use": "adamw", "lr": 3e-3}
    qat = run(write_job, job, base, tmp_path / "qat", adapter=adapter, quantizer="qat")
    plain = run(write_job, job, base, tmp_path / "plain", adapter=adapter)
    assert qat != plain and qat[-1] < qat[0] - 0.1 and abs(qat[-1] - plain[-1]) < 0.3
    final = tmp_path / "qat" / "final"
    with torch.no_grad():
        if adapter == "full":
            ours, theirs = ptsdk.load_model(str(final)), AutoModelForCausalLM.from_pretrained(final)(IDS).logits
        else:
            ours, theirs = ptsdk.load_model(str(base), adapter=str(final)), logits_in_peft(base, final)
        torch.testing.assert_close(ptsdk.logits(ours, IDS), theirs, rtol=1e-4, atol=1e-4)


def test_an_adapter_is_not_lost_by_conversion(base: Path) -> None:
    from ptsdk.errors import RunError
    from ptsdk_lora.adapter import Lora
    from ptsdk_qat.quantizer import Qat

    model = ptsdk.load_model(str(base), dtype="float32")
    Qat().prepare(model)
    Lora(rank=4, alpha=8).apply(model)
    with pytest.raises(RunError, match="merge it first"):
        Qat().convert(model)


def test_a_packed_base_on_two_processes_is_the_one_on_one(
    job: dict[str, Any], write_job: WriteJob, base: Path, tmp_path: Path
) -> None:
    """DoRA's magnitudes are made of the packed weights while those are in shards.

    With its usual eps AdamW makes a whole step of a gradient that is all rounding, and the two
    round differently: here steps are in proportion to gradients.
    """
    from safetensors.torch import load_file

    job["optimizer"] = {"use": "adamw", "lr": 1e-2, "eps": 1e-3}

    dora = {**LORA, "use": "dora"}
    cells = {"lora-nf4": (LORA, "nf4"), **{f"dora-{name}": (dora, name) for name in ("nf4", "int4", "int8")}}
    single, sharded = {}, []
    for name, (adapter, quantizer) in cells.items():
        changes = {"adapter": adapter, "quantizer": quantizer}
        single[name] = run(write_job, job, base, tmp_path / name, **changes)
        there = {"strategy": "fsdp2", "output_dir": str(tmp_path / f"{name}-sharded")}
        sharded.append(write_job({**job, "model": {"path": str(base)}, **changes, **there}, f"{name}-sharded.yaml"))
    run_in_two(sharded)
    for name, losses in single.items():
        theirs = [row["loss"] for row in metrics(tmp_path / f"{name}-sharded")]
        torch.testing.assert_close(theirs, losses, rtol=1e-5, atol=0, msg=name)
        file = "final/adapter_model.safetensors"
        a, b = (load_file(tmp_path / run / file) for run in (f"{name}-sharded", name))
        assert any("magnitude" in key for key in a) == name.startswith("dora")
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("quantizer", ["int4", "qat"])
def test_groups_that_the_model_cannot_fill_are_refused_before_a_run(
    job: dict[str, Any], write_job: WriteJob, base: Path, quantizer: str
) -> None:
    job |= {"model": {"path": str(base)}, "adapter": LORA, "quantizer": {"use": quantizer, "group_size": 128}}
    with pytest.raises(UserError) as caught:
        load_job(write_job(job), (), Registry(scan()))
    (problem,) = caught.value.problems
    assert problem.path.startswith("quantizer") and problem.file.endswith("job.yaml") and problem.line > 1
    assert f"quantizer {quantizer} with model llama: q_proj" in problem.message and "128" in problem.message
