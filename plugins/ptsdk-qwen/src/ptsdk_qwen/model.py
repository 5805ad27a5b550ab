"""Qwen 2 and 2.5 (arXiv:2407.10671, 2412.15115) and Qwen 3 (arXiv:2505.09388): config, attention, model, family.

N tokens, D width, H query heads, K key/value heads, E head size. Parameters bear the names of
Hugging Face checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from ptsdk.contracts.model import DecoderFamily
from ptsdk.nn.config import RotaryConfig
from ptsdk.nn.decoder import Decoder, PreNormBlock, RotaryLM
from ptsdk.nn.mlp import GatedMLP
from ptsdk.nn.norm import RMSNorm
from ptsdk.nn.self_attention import SelfAttention

LayerType = Literal["sliding_attention", "full_attention"]


class QwenConfig(RotaryConfig):
    """What config.json has in both families, with the defaults of transformers."""

    vocab_size: PositiveInt = 151_936
    hidden_size: PositiveInt = 4096
    intermediate_size: PositiveInt = 22_016
    num_hidden_layers: PositiveInt = 32
    num_attention_heads: PositiveInt = 32
    num_key_value_heads: PositiveInt | None = 32
    max_position_embeddings: PositiveInt = 32_768
    hidden_act: Literal["silu"] = "silu"
    use_sliding_window: bool = False
    sliding_window: PositiveInt | None = 4096
    max_window_layers: NonNegativeInt = 28
    layer_types: tuple[LayerType, ...] | None = None

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        if len(self.kinds) != self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.kinds)} layers of {self.num_hidden_layers}")
        if self.use_sliding_window and self.sliding_window is None:
            raise ValueError("use_sliding_window is true, but sliding_window is null")
        if "sliding_attention" in self.kinds and not self.use_sliding_window:
            raise ValueError("layer_types names sliding_attention, but use_sliding_window is false")
        return self

    @property
    def kinds(self) -> tuple[LayerType, ...]:
        """The type of each layer; with sliding windows, all from ``max_window_layers`` on unless given."""
        first = self.max_window_layers if self.use_sliding_window else self.num_hidden_layers
        return self.layer_types or tuple(
            "full_attention" if layer < first else "sliding_attention" for layer in range(self.num_hidden_layers)
        )

    @property
    def biases(self) -> tuple[bool, bool]:
        """Whether the projections to queries, keys and values have a bias, and whether the output's has."""
        raise NotImplementedError


class Qwen2Config(QwenConfig):
    """config.json of a Qwen2ForCausalLM."""

    architectures: tuple[str, ...] = ("Qwen2ForCausalLM",)
    model_type: Literal["qwen2"] = "qwen2"

    @property
    def biases(self) -> tuple[bool, bool]:
        """Always, and never."""
        return True, False


class Qwen3Config(QwenConfig):
    """config.json of a Qwen3ForCausalLM."""

    splits_width = False

    architectures: tuple[str, ...] = ("Qwen3ForCausalLM",)
    model_type: Literal["qwen3"] = "qwen3"
    head_dim: PositiveInt = 128
    attention_bias: bool = False

    @property
    def biases(self) -> tuple[bool, bool]:
        """``attention_bias`` for all four."""
        return self.attention_bias, self.attention_bias


class Qwen2Attention(SelfAttention):
    """Grouped-query attention, in some layers with a sliding window."""

    def __init__(self, settings: QwenConfig, layer: int) -> None:
        bias, out_bias = settings.biases
        super().__init__(
            layer,
            settings.hidden_size,
            settings.num_attention_heads,
            settings.kv_heads,
            settings.head_size,
            window=settings.sliding_window if settings.kinds[layer] == "sliding_attention" else None,
            bias=bias,
            out_bias=out_bias,
        )


class Qwen3Attention(Qwen2Attention):
    """The queries and keys of each head are normalised before they are rotated (arXiv:2302.05442)."""

    def __init__(self, settings: QwenConfig, layer: int) -> None:
        super().__init__(settings, layer)
        self.q_norm = RMSNorm(settings.head_size, settings.rms_norm_eps)
        self.k_norm = RMSNorm(settings.head_size, settings.rms_norm_eps)

    def project(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``SelfAttention.project``."""
        q_NHE, k_NKE, v_NKE = super().project(x_ND)
        return self.q_norm(q_NHE), self.k_norm(k_NKE), v_NKE


class Qwen2ForCausalLM(RotaryLM):
    """Pre-norm blocks of grouped-query attention and SwiGLU, one rotation for all of them."""

    settings: QwenConfig
    attention: ClassVar[type[Qwen2Attention]] = Qwen2Attention

    def __init__(self, settings: QwenConfig, config: Mapping[str, Any]) -> None:
        width, eps = settings.hidden_size, settings.rms_norm_eps
        blocks = (
            PreNormBlock(self.attention(settings, layer), GatedMLP(width, settings.intermediate_size, silu), width, eps)
            for layer in range(settings.num_hidden_layers)
        )
        decoder = Decoder(nn.Embedding(settings.vocab_size, width), blocks, RMSNorm(width, eps))
        super().__init__(settings, config, decoder)


class Qwen3ForCausalLM(Qwen2ForCausalLM):
    """The same around ``Qwen3Attention``."""

    attention = Qwen3Attention


TINY: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "use_sliding_window": True,
    "sliding_window": 8,
    "max_window_layers": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}


class Qwen2(DecoderFamily):
    """The ``qwen2`` family."""

    architectures = ("Qwen2ForCausalLM",)
    settings = Qwen2Config
    module = Qwen2ForCausalLM
    tiny: ClassVar[dict[str, Any]] = {**TINY, "tie_word_embeddings": True}


class Qwen3(DecoderFamily):
    """The ``qwen3`` family."""

    architectures = ("Qwen3ForCausalLM",)
    settings = Qwen3Config
    module = Qwen3ForCausalLM
    tiny: ClassVar[dict[str, Any]] = {**TINY, "head_dim": 10, "attention_bias": True}
