"""Mistral (arXiv:2310.06825): config, model, family. Parameters bear the names of Hugging Face checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import nn
from torch.nn.functional import silu

from ptsdk.contracts.model import DecoderFamily
from ptsdk.nn.config import RotaryConfig
from ptsdk.nn.decoder import Decoder, PreNormBlock, RotaryLM
from ptsdk.nn.mlp import GatedMLP
from ptsdk.nn.norm import RMSNorm
from ptsdk.nn.self_attention import SelfAttention


class MistralConfig(RotaryConfig):
    """config.json of a MistralForCausalLM, with the defaults of transformers."""

    splits_width = False

    architectures: tuple[str, ...] = ("MistralForCausalLM",)
    model_type: Literal["mistral"] = "mistral"
    vocab_size: PositiveInt = 32_000
    hidden_size: PositiveInt = 4096
    intermediate_size: PositiveInt = 14_336
    num_hidden_layers: PositiveInt = 32
    num_attention_heads: PositiveInt = 32
    num_key_value_heads: PositiveInt | None = 8
    max_position_embeddings: PositiveInt = 131_072
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    hidden_act: Literal["silu"] = "silu"
    sliding_window: PositiveInt | None = 4096
    layer_types: None = Field(None, description="Ministral's, whose layers differ")


class MistralForCausalLM(RotaryLM):
    """Pre-norm blocks of grouped-query attention, with one sliding window in all of them or none, and SwiGLU."""

    settings: MistralConfig

    def __init__(self, settings: MistralConfig, config: Mapping[str, Any]) -> None:
        width, eps = settings.hidden_size, settings.rms_norm_eps
        blocks = (
            PreNormBlock(attention(settings, layer), GatedMLP(width, settings.intermediate_size, silu), width, eps)
            for layer in range(settings.num_hidden_layers)
        )
        decoder = Decoder(nn.Embedding(settings.vocab_size, width), blocks, RMSNorm(width, eps))
        super().__init__(settings, config, decoder)


def attention(settings: MistralConfig, layer: int) -> SelfAttention:
    """The attention of the block at index ``layer``."""
    heads, kv_heads = settings.num_attention_heads, settings.kv_heads
    return SelfAttention(
        layer, settings.hidden_size, heads, kv_heads, settings.head_size, window=settings.sliding_window
    )


class Mistral(DecoderFamily):
    """The ``mistral`` family."""

    architectures = ("MistralForCausalLM",)
    settings = MistralConfig
    module = MistralForCausalLM
    tiny: ClassVar[dict[str, Any]] = {
        "vocab_size": 320,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "sliding_window": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    }
