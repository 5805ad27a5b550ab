"""Quantizers on a model of core: what is swapped, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ptsdk.builtin.tiny import Tiny
from ptsdk.checkpoint.weights import build_on_meta, fill, initial_tensors, stored_tensors
from ptsdk.contracts.quantizer import Packs
from ptsdk.errors import UserError
from ptsdk.job.load import load_job
from ptsdk.nn.causal_lm import CausalLM, block_linears
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk_torchao.layers import PackedLinear
from ptsdk_torchao.quantizers import NF4, Int4, Int8, WeightOnly

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}


def build(quantizer: WeightOnly | None, **shape: int) -> CausalLM:
    family = Tiny(config={**SHAPE, **shape})
    model = build_on_meta(family, family.full_config(family.config or {}), torch.float32)
    if quantizer:
        quantizer.prepare(model)
    model.requires_grad_(False)
    names = [name for name, _ in model.named_parameters()]
    fill(model, initial_tensors(model, names, 0), torch.device("cpu"), torch.float32)
    return model


@pytest.mark.parametrize("quantizer", [NF4(), Int8(), Int4()], ids=lambda q: type(q).__name__)
def test_only_linear_layers_of_the_blocks_are_packed(quantizer: WeightOnly) -> None:
    plain, packed = build(None), build(quantizer)
    layers = block_linears(packed)
    assert layers and all(isinstance(layer, PackedLinear) and isinstance(layer, Packs) for layer in layers.values())
    weights = {f"{name}.weight" for name in layers}
    for name, tensor in stored_tensors(packed).items():
        original = plain.state_dict()[name]
        assert tensor.shape == original.shape and tensor.dtype == original.dtype
        if name in weights:
            scheme = quantizer.scheme
            expected = scheme.unpack(scheme.pack(original), original.shape[1], torch.float32)
            assert tensor.equal(expected) and not tensor.equal(original)
        else:
            assert tensor.equal(original)


def test_layers_that_cannot_be_packed_are_all_named() -> None:
    with pytest.raises(UserError) as caught:
        build(Int4(group_size=128))
    assert "q_proj, k_proj" in str(caught.value) and "group_size 128" in str(caught.value)
    assert "down_proj" not in str(caught.value)


def job(tmp_path: Path, **changes: Any) -> Path:
    import yaml

    (tmp_path / "train.jsonl").write_text('{"text": "what comes after"}\n')
    path = tmp_path / "job.yaml"
    base = {
        "api": 1,
        "model": {"use": "tiny", "config": SHAPE},
        "tokenizer": "bytes",
        "data": {"train": {"use": "text", "path": "train.jsonl"}},
        "method": "sft",
        "train": {"steps": 1},
    }
    path.write_text(yaml.safe_dump({**base, **changes}))
    return path


@pytest.mark.parametrize("name", ["nf4", "int8", "int4"])
@pytest.mark.parametrize("adapter", [{}, {"adapter": "full"}])
def test_full_training_of_a_packed_base_is_refused(tmp_path: Path, name: str, adapter: dict[str, str]) -> None:
    with pytest.raises(UserError) as caught:
        load_job(job(tmp_path, quantizer=name, **adapter), (), Registry(scan()))
    message = str(caught.value)
    assert f"quantizer {name}" in message and "adapter full" in message and "frozen" in message
