"""Llama in GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ptsdk.errors import Problem, UserError
from ptsdk.nn.rope import inverse_frequencies, llama3_scaled
from ptsdk_gguf.architecture import DECODER_NAMES, Architecture, rope_scaling
from ptsdk_gguf.header import Header
from ptsdk_gguf.weights import read_tensor

NAMES = {**DECODER_NAMES, "ffn_norm": "post_attention_layernorm"}
FREQUENCY_FACTORS = "rope_freqs.weight"
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What every Llama 3.1 and later was trained with; the file holds only what follows from it."""


def config(header: Header) -> dict[str, Any]:
    """What config.json has beyond a plain decoder's."""
    theta = header.get("rope.freq_base", 10_000.0)
    scaling = llama3_scaling(header, theta) if FREQUENCY_FACTORS in header.tensors else rope_scaling(header)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in header.tensors,
        "rope_parameters": {"rope_type": "default", **(scaling or {}), "rope_theta": theta},
    }


def llama3_scaling(header: Header, theta: float) -> dict[str, Any]:
    """The ``llama3`` scaling from the factors that it divides each frequency by.

    Raises:
        UserError: no such scaling has these factors.
    """
    factors = read_tensor(header.path, header.tensors[FREQUENCY_FACTORS]).float()
    factor = round(factors.max().item(), 4)
    plain = inverse_frequencies(2 * len(factors), theta)
    expected = plain / llama3_scaled(plain, factor, LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"], 8192)
    if not torch.allclose(factors, expected, rtol=1e-4):
        message = f"{FREQUENCY_FACTORS} is not the scaling of Llama 3.1"
        raise UserError(Problem(message, "take the safetensors checkpoint of this model", str(header.path)))
    return {"rope_type": "llama3", "factor": factor, **LLAMA3}


def undo(name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Rows of q and k are stored for rotation of neighbours; the model turns halves."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    pairs = tensor.view(config[heads], -1, 2, *tensor.shape[1:])  # [heads, E / 2, 2, ...]
    return pairs.transpose(1, 2).reshape(tensor.shape)


LLAMA = Architecture(NAMES, config, undo, derived=frozenset({FREQUENCY_FACTORS}))
