"""Checkpoints of the first Llamas hold the frequencies of the rotation; they are computed here."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ptsdk.checkpoint.sources import open_checkpoint
from ptsdk.checkpoint.weights import build_on_meta, check_names
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk_llama.model import Llama


def test_stored_frequencies_are_passed_over(tmp_path: Path) -> None:
    family = Llama()
    config = family.full_config(family.tiny_config())
    model = build_on_meta(family, config, torch.float32)
    names = [name for name, _ in model.named_parameters()]
    tensors = {name: torch.zeros(model.get_parameter(name).shape) for name in names}
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_names(model, names, open_checkpoint(str(tmp_path), tmp_path, Registry(scan())))
