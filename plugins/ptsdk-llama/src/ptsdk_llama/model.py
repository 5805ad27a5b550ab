"""Llama (arXiv:2302.13971, 2307.09288, 2407.21783): config, model, family.

Parameters bear the names of Hugging Face checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt
from torch import nn
from torch.nn.functional import silu

from ptsdk.contracts.model import DecoderFamily
from ptsdk.nn.config import RotaryConfig
from ptsdk.nn.decoder import Decoder, PreNormBlock, RotaryLM
from ptsdk.nn.mlp import GatedMLP
from ptsdk.nn.norm import RMSNorm
from ptsdk.nn.self_attention import SelfAttention


class LlamaConfig(RotaryConfig):
    """config.json of a LlamaForCausalLM, with the defaults of transformers."""

    architectures: tuple[str, ...] = ("LlamaForCausalLM",)
    model_type: Literal["llama"] = "llama"
    vocab_size: PositiveInt = 32_000
    hidden_size: PositiveInt = 4096
    intermediate_size: PositiveInt = 11_008
    num_hidden_layers: PositiveInt = 32
    num_attention_heads: PositiveInt = 32
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    hidden_act: Literal["silu"] = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    pretraining_tp: int | None = None


class LlamaForCausalLM(RotaryLM):
    """Pre-norm blocks of grouped-query attention and SwiGLU, one rotation for all of them."""

    settings: LlamaConfig

    def __init__(self, settings: LlamaConfig, config: Mapping[str, Any]) -> None:
        width, eps = settings.hidden_size, settings.rms_norm_eps
        blocks = (block(settings, layer) for layer in range(settings.num_hidden_layers))
        decoder = Decoder(nn.Embedding(settings.vocab_size, width), blocks, RMSNorm(width, eps))
        super().__init__(settings, config, decoder)


def block(settings: LlamaConfig, layer: int) -> PreNormBlock:
    """The block at index ``layer``."""
    attention = SelfAttention(
        layer,
        settings.hidden_size,
        settings.num_attention_heads,
        settings.kv_heads,
        settings.head_size,
        bias=settings.attention_bias,
        out_bias=settings.attention_bias,
    )
    mlp = GatedMLP(settings.hidden_size, settings.intermediate_size, silu, bias=settings.mlp_bias)
    return PreNormBlock(attention, mlp, settings.hidden_size, settings.rms_norm_eps)


class Llama(DecoderFamily):
    """The ``llama`` family."""

    architectures = ("LlamaForCausalLM",)
    settings = LlamaConfig
    module = LlamaForCausalLM
    tiny: ClassVar[dict[str, Any]] = {
        "vocab_size": 320,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10_000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    }
