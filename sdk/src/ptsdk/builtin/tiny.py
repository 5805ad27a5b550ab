"""A small decoder on the shared blocks, so that core trains with nothing else installed."""

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


class TinyConfig(RotaryConfig):
    """Every key has a default: ``model: {use: tiny, config: {}}`` is a model of 0.15 M parameters."""

    architectures: tuple[str, ...] = ("TinyForCausalLM",)
    model_type: Literal["tiny"] = "tiny"
    vocab_size: PositiveInt = 320
    hidden_size: PositiveInt = 64
    intermediate_size: PositiveInt = 192
    num_hidden_layers: PositiveInt = 2
    num_attention_heads: PositiveInt = 4
    num_key_value_heads: PositiveInt | None = 2
    tie_word_embeddings: bool = True


class TinyForCausalLM(RotaryLM):
    """Pre-norm blocks with grouped-query attention and SwiGLU."""

    settings: TinyConfig

    def __init__(self, settings: TinyConfig, config: Mapping[str, Any]) -> None:
        width, eps = settings.hidden_size, settings.rms_norm_eps
        heads = (settings.num_attention_heads, settings.kv_heads, settings.head_size)
        blocks = (
            PreNormBlock(
                SelfAttention(layer, width, *heads), GatedMLP(width, settings.intermediate_size, silu), width, eps
            )
            for layer in range(settings.num_hidden_layers)
        )
        decoder = Decoder(nn.Embedding(settings.vocab_size, width), blocks, RMSNorm(width, eps))
        super().__init__(settings, config, decoder)


class Tiny(DecoderFamily):
    """The ``tiny`` family."""

    architectures = ("TinyForCausalLM",)
    settings = TinyConfig
    module = TinyForCausalLM
    tiny: ClassVar[dict[str, Any]] = {"hidden_size": 16, "intermediate_size": 32}
