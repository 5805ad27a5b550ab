"""A small checkpoint as transformers would write it."""

from __future__ import annotations

from pathlib import Path

import torch

from ptsdk.builtin.formats import SafetensorsFolder
from ptsdk.builtin.tiny import Tiny
from ptsdk.checkpoint.export import export_model
from ptsdk.checkpoint.weights import build_on_meta, fill, initial_tensors
from ptsdk.contracts.model import ModelFamily
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.nn.causal_lm import CausalLM

CPU = torch.device("cpu")


def built(family: ModelFamily, dtype: torch.dtype = torch.float32, seed: int = 0) -> CausalLM:
    """A model of the family's ``config``, every weight made of the seed."""
    model = build_on_meta(family, family.full_config(family.config or {}), dtype)
    fill(model, initial_tensors(model, [name for name, _ in model.named_parameters()], seed), CPU, dtype)
    return model


def tiny_checkpoint(folder: Path) -> SafetensorsFolder:
    """A folder with config.json, weights and the tokenizer of core's own small model."""
    family = Tiny(config={"hidden_size": 16, "intermediate_size": 32})
    tensors = {name: tensor.detach() for name, tensor in built(family).state_dict().items()}
    export_model(folder, tensors, family.full_config(family.config or {}), ByteTokenizer())
    return SafetensorsFolder(folder)
