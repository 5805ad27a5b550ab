"""Gemma, the first (arXiv:2403.08295): config, model, family.

N tokens, D width. Parameters bear the names of Hugging Face checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import gelu

from ptsdk.contracts.model import DecoderFamily
from ptsdk.nn.config import RotaryConfig
from ptsdk.nn.decoder import Decoder, PreNormBlock, RotaryLM
from ptsdk.nn.mlp import GatedMLP
from ptsdk.nn.self_attention import SelfAttention
from ptsdk_gemma.model import GemmaRMSNorm, embedded


class GemmaConfig(RotaryConfig):
    """config.json of a GemmaForCausalLM, with the defaults of transformers."""

    splits_width = False

    architectures: tuple[str, ...] = ("GemmaForCausalLM",)
    model_type: Literal["gemma"] = "gemma"
    vocab_size: PositiveInt = 256_000
    hidden_size: PositiveInt = 3072
    intermediate_size: PositiveInt = 24_576
    num_hidden_layers: PositiveInt = 28
    num_attention_heads: PositiveInt = 16
    num_key_value_heads: PositiveInt | None = 16
    head_dim: PositiveInt | None = 256
    max_position_embeddings: PositiveInt = 8192
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1
    pad_token_id: int | None = 0
    hidden_act: Literal["gelu_pytorch_tanh", "gelu"] = Field(
        "gelu_pytorch_tanh", description="the tanh approximation; the first checkpoints call it gelu"
    )
    hidden_activation: Literal["gelu_pytorch_tanh"] | None = None
    attention_bias: bool = False
    use_bidirectional_attention: Literal[False] | None = Field(None, description="an encoder's, not a language model's")


class GemmaForCausalLM(RotaryLM):
    """Pre-norm blocks with Gemma's norm and GeGLU."""

    settings: GemmaConfig
    norm_init = 0.0

    def __init__(self, settings: GemmaConfig, config: Mapping[str, Any]) -> None:
        width, eps = settings.hidden_size, settings.rms_norm_eps
        activation = partial(gelu, approximate="tanh")
        blocks = (
            PreNormBlock(
                attention(settings, layer),
                GatedMLP(width, settings.intermediate_size, activation),
                width,
                eps,
                GemmaRMSNorm,
            )
            for layer in range(settings.num_hidden_layers)
        )
        decoder = Decoder(nn.Embedding(settings.vocab_size, width), blocks, GemmaRMSNorm(width, eps))
        super().__init__(settings, config, decoder)

    def embedded(self, tokens: Tensor) -> Tensor:
        """See ``RotaryLM.embedded``."""
        return embedded(self.model.embed_tokens, tokens)


def attention(settings: GemmaConfig, layer: int) -> SelfAttention:
    """The attention of the block at index ``layer``."""
    heads, kv_heads, bias = settings.num_attention_heads, settings.kv_heads, settings.attention_bias
    return SelfAttention(layer, settings.hidden_size, heads, kv_heads, settings.head_size, bias=bias, out_bias=bias)


class Gemma(DecoderFamily):
    """The ``gemma`` family."""

    architectures = ("GemmaForCausalLM",)
    settings = GemmaConfig
    module = GemmaForCausalLM
    tiny: ClassVar[dict[str, Any]] = {
        "vocab_size": 320,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "attention_bias": True,
    }
