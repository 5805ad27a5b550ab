"""What a full run leaves in ``final/``, as transformers reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

import ptsdk
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.conftest import WriteJob
from tests.matrix.test_invariance import FAMILIES
from tests.parity.trl import save_checkpoint


def trained(job: dict[str, Any], write_job: WriteJob) -> Path:
    registry = Registry(scan())
    job["train"]["steps"] = 2
    return run_job(load_job(write_job(job), (), registry), registry).final_dir


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gemma", "mistral", "phi3"])
def test_a_model_from_scratch(job: dict[str, Any], write_job: WriteJob, family: str, tied: bool, dtype: str) -> None:
    config = FAMILIES[family] | {"tie_word_embeddings": tied}
    job["model"] = {"use": family, "config": config, "dtype": dtype}
    final = trained(job, write_job)
    theirs: Any = AutoModelForCausalLM.from_pretrained(final)
    assert theirs.dtype == getattr(torch, dtype)
    embedding, head = theirs.get_input_embeddings().weight, theirs.get_output_embeddings().weight
    assert (embedding.data_ptr() == head.data_ptr()) == tied
    ids = torch.randint(3, 250, (3, 40), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 17:], mask[2, 5:] = 0, 0
    with torch.no_grad():
        expected = theirs.float().eval()(input_ids=ids, attention_mask=mask).logits
        ours = ptsdk.logits(ptsdk.load_model(final), ids, mask)
    torch.testing.assert_close(ours[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)
    eos = AutoTokenizer.from_pretrained(final).eos_token_id
    assert theirs.generation_config.eos_token_id == eos, "a family's default id is another tokenizer's"


def test_a_checkpoint_without_generation_config_keeps_its_own_ends(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path
) -> None:
    """config.json may name more ends than the tokenizer has."""
    checkpoint = save_checkpoint(tmp_path / "model")
    (checkpoint / "generation_config.json").unlink()
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"eos_token_id": [2, 4]}))
    job["model"] = {"path": str(checkpoint)}
    del job["tokenizer"]
    assert json.loads((trained(job, write_job) / "generation_config.json").read_text())["eos_token_id"] == [2, 4]


def test_an_adapter_on_fused_projections_is_pefts(job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    """Phi's queries, keys and values are one layer, and so is its gate with what it gates."""
    job["model"] = {"use": "phi3", "config": FAMILIES["phi3"], "dtype": "float32"}
    base = trained({**job, "output_dir": str(tmp_path / "base")}, write_job)
    job["model"] = {"path": str(base)}
    del job["tokenizer"]
    final = trained({**job, "adapter": {"use": "lora", "rank": 2}, "output_dir": str(tmp_path / "lora")}, write_job)
    theirs: Any = AutoPeftModelForCausalLM.from_pretrained(final)
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in theirs.named_parameters() if "lora_" in name}
    assert layers == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    ids = torch.randint(
        3, 250, (1, 50), generator=torch.Generator().manual_seed(1)
    )  # longer than 40: the long rotation
    with torch.no_grad():
        ours = ptsdk.logits(ptsdk.load_model(base, adapter=final), ids)
        torch.testing.assert_close(ours, theirs.eval()(ids).logits, rtol=1e-4, atol=1e-4)


def test_an_adapter_finds_its_base_from_any_folder(
    job: dict[str, Any], write_job: WriteJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job names the base relative to itself; PEFT reads the adapter alone, from elsewhere."""
    checkpoint = save_checkpoint(tmp_path / "model")
    job |= {"model": {"path": "model"}, "adapter": {"use": "lora", "rank": 2}}
    del job["tokenizer"]
    final = trained(job, write_job)
    monkeypatch.chdir(tmp_path.parent)
    theirs: Any = AutoPeftModelForCausalLM.from_pretrained(final)
    ids = torch.randint(3, 50, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = ptsdk.logits(ptsdk.load_model(checkpoint, adapter=final), ids)
        torch.testing.assert_close(ours, theirs.eval()(ids).logits, rtol=1e-4, atol=1e-4)
