"""Gemma 3 in GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ptsdk_gguf.architecture import DECODER_NAMES, Architecture, Pieces, rope_scaling
from ptsdk_gguf.header import Header

NAMES = {
    **DECODER_NAMES,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
LAYERS_OF_27B = 62
"""The one size whose queries are scaled by D / H instead of the head size; the file does not say."""


def config(header: Header) -> dict[str, Any]:
    """What config.json has beyond a plain decoder's."""
    layers, heads = header.need("block_count"), header.need("attention.head_count")
    width, head_dim = header.need("embedding_length"), header.need("attention.key_length")
    pattern = header.get("attention.sliding_window_pattern", 6)
    full: dict[str, Any] = {"rope_type": "default", **(rope_scaling(header) or {})}
    full["rope_theta"] = header.get("rope.freq_base", 1_000_000.0)
    sliding = {"rope_type": "default", "rope_theta": header.get("rope.freq_base_swa", 10_000.0)}
    softcap = header.get("final_logit_softcapping")
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": width // heads if layers == LAYERS_OF_27B else head_dim,
        "sliding_window": header.need("attention.sliding_window"),
        "layer_types": [layer_type(layer, pattern) for layer in range(layers)],
        "rope_parameters": {"full_attention": full, "sliding_attention": sliding},
        **({"final_logit_softcapping": softcap} if softcap else {}),
    }


def layer_type(layer: int, pattern: int | list[bool]) -> str:
    """``pattern`` is a flag for each layer (true: sliding), or says that every so many is full."""
    sliding = pattern[layer] if isinstance(pattern, list) else bool((layer + 1) % pattern)
    return "sliding_attention" if sliding else "full_attention"


def undo(name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Norms are stored as the factor itself; the model holds what is added to one."""
    return tensor.float() - 1 if name.endswith("norm.weight") else tensor


GEMMA3 = Architecture(NAMES, config, undo, Pieces(ranked_by_place=True, escaped_blanks=True))
