"""A small decoder on the shared blocks, so that core trains with nothing else installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import silu

from ptsdk.contracts.model import DecoderFamily
from ptsdk.nn.attention import Attend
from ptsdk.nn.config import RotaryConfig
from ptsdk.nn.decoder import Decoder, DecoderLM, PreNormBlock
from ptsdk.nn.mlp import GatedMLP
from ptsdk.nn.norm import RMSNorm
from ptsdk.nn.rope import rotations
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


class TinyForCausalLM(DecoderLM):
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

    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """See ``CausalLM.hidden_states``."""
        embedded = self.model.embed_tokens(tokens)
        inv_freq = self.settings.rope_parameters.inverse_frequencies(self.head_dim, tokens.device)
        rope = rotations(positions, inv_freq, embedded.dtype)
        hidden: Tensor = self.model(embedded, [rope] * self.num_layers, attend)
        return hidden


class Tiny(DecoderFamily):
    """The ``tiny`` family."""

    architectures = ("TinyForCausalLM",)
    settings = TinyConfig
    module = TinyForCausalLM
    tiny: ClassVar[dict[str, Any]] = {"hidden_size": 16, "intermediate_size": 32}
