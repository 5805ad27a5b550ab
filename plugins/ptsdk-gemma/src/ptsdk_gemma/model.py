"""Gemma 3, text (arXiv:2503.19786): config, norm, attention, block, model, family.

N tokens, D width, H query heads, K key/value heads, E head size, V vocabulary. Parameters bear the
names of Hugging Face checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import gelu

from ptsdk.contracts.model import DecoderFamily
from ptsdk.nn.attention import Attend
from ptsdk.nn.config import DecoderConfig, RopeParameters, rope_entry
from ptsdk.nn.decoder import Decoder, DecoderLM
from ptsdk.nn.mlp import GatedMLP
from ptsdk.nn.norm import normalise
from ptsdk.nn.recompute import recomputed
from ptsdk.nn.rope import Rope, rotations
from ptsdk.nn.self_attention import SelfAttention

LayerType = Literal["sliding_attention", "full_attention"]


class Gemma3Config(DecoderConfig):
    """config.json of a Gemma3ForCausalLM, with the defaults of transformers."""

    older_keys = frozenset({"rope_theta", "rope_scaling", "rope_local_base_freq"})

    architectures: tuple[str, ...] = ("Gemma3ForCausalLM",)
    model_type: Literal["gemma3_text"] = "gemma3_text"
    vocab_size: PositiveInt = 262_208
    hidden_size: PositiveInt = 2304
    intermediate_size: PositiveInt = 9216
    num_hidden_layers: PositiveInt = 26
    num_attention_heads: PositiveInt = 8
    num_key_value_heads: PositiveInt | None = 4
    head_dim: PositiveInt | None = 256
    max_position_embeddings: PositiveInt = 131_072
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1
    pad_token_id: int | None = 0
    hidden_activation: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    attention_bias: bool = False
    query_pre_attn_scalar: PositiveInt = 256
    sliding_window: PositiveInt = 4096
    sliding_window_pattern: PositiveInt = 6
    layer_types: tuple[LayerType, ...] | None = None
    rope_parameters: dict[LayerType, RopeParameters]
    original_max_position_embeddings: None = Field(None, description="belongs into rope_parameters")
    final_logit_softcapping: PositiveFloat | None = None
    attn_logit_softcapping: None = Field(None, description="Gemma 2's; not part of Gemma 3")
    use_bidirectional_attention: Literal[False] | None = Field(None, description="an encoder's, not a language model's")

    @model_validator(mode="before")
    @classmethod
    def _fold_older_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Older files have the bases beside ``rope_scaling``, which is that of full attention."""
        config = dict(config)
        full_theta = config.pop("rope_theta", 1_000_000.0)
        local_theta = config.pop("rope_local_base_freq", 10_000.0)
        rope = dict(config.get("rope_parameters") or {})
        full = {**(rope.get("full_attention") or {}), **(config.pop("rope_scaling", None) or {})}
        rope["full_attention"] = rope_entry(full, full_theta)
        rope["sliding_attention"] = rope_entry(rope.get("sliding_attention"), local_theta)
        return {**config, "rope_parameters": rope}

    @model_validator(mode="after")
    def _one_type_a_layer(self) -> Self:
        if len(self.kinds) != self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.kinds)} layers of {self.num_hidden_layers}")
        return self

    @property
    def kinds(self) -> tuple[LayerType, ...]:
        """The type of each layer; every ``sliding_window_pattern``-th is full unless given."""
        pattern = self.sliding_window_pattern
        return self.layer_types or tuple(
            "sliding_attention" if (layer + 1) % pattern else "full_attention"
            for layer in range(self.num_hidden_layers)
        )


class GemmaRMSNorm(nn.Module):
    """``(1 + weight) * normalise(x)``, rounded once at the end: weights are stored around zero."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D], same dtype."""
        return recomputed(self._scaled, x, self.weight)

    def _scaled(self, x: Tensor, weight: Tensor) -> Tensor:
        normed = normalise(x, self.eps)
        return (normed * (1.0 + weight.to(normed.dtype))).to(x.dtype)


class Gemma3Attention(SelfAttention):
    """Queries and keys are normalised before they are rotated (arXiv:2302.05442, 2309.14322)."""

    def __init__(self, settings: Gemma3Config, layer: int) -> None:
        super().__init__(
            layer,
            settings.hidden_size,
            settings.num_attention_heads,
            settings.kv_heads,
            settings.head_size,
            scale=settings.query_pre_attn_scalar**-0.5,
            window=settings.sliding_window if settings.kinds[layer] == "sliding_attention" else None,
            bias=settings.attention_bias,
            out_bias=settings.attention_bias,
        )
        self.q_norm = GemmaRMSNorm(settings.head_size, settings.rms_norm_eps)
        self.k_norm = GemmaRMSNorm(settings.head_size, settings.rms_norm_eps)

    def project(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``SelfAttention.project``."""
        q_NHE, k_NKE, v_NKE = super().project(x_ND)
        return self.q_norm(q_NHE), self.k_norm(k_NKE), v_NKE


class Gemma3Block(nn.Module):
    """Each of attention and MLP is normalised on its way in and on its way out."""

    def __init__(self, settings: Gemma3Config, layer: int) -> None:
        super().__init__()
        norm = partial(GemmaRMSNorm, settings.hidden_size, settings.rms_norm_eps)
        activation = partial(gelu, approximate="tanh")
        self.input_layernorm = norm()
        self.self_attn = Gemma3Attention(settings, layer)
        self.post_attention_layernorm = norm()
        self.pre_feedforward_layernorm = norm()
        self.mlp = GatedMLP(settings.hidden_size, settings.intermediate_size, activation)
        self.post_feedforward_layernorm = norm()

    def forward(self, hidden_states: Tensor, rope: Rope, attend: Attend) -> Tensor:
        """[N, D] -> [N, D]."""
        mixed = self.self_attn(self.input_layernorm(hidden_states), rope, attend)
        hidden_states = hidden_states + self.post_attention_layernorm(mixed)
        fed = self.mlp(self.pre_feedforward_layernorm(hidden_states))
        hidden_states = hidden_states + self.post_feedforward_layernorm(fed)
        return hidden_states


class Gemma3ForCausalLM(DecoderLM):
    """Blocks with a sliding window and a short-range rotation, every few of them without and with
    a long-range one."""

    settings: Gemma3Config
    norm_init = 0.0

    def __init__(self, settings: Gemma3Config, config: Mapping[str, Any]) -> None:
        blocks = (Gemma3Block(settings, layer) for layer in range(settings.num_hidden_layers))
        embed_tokens = nn.Embedding(settings.vocab_size, settings.hidden_size)
        decoder = Decoder(embed_tokens, blocks, GemmaRMSNorm(settings.hidden_size, settings.rms_norm_eps))
        super().__init__(settings, config, decoder)
        self.softcap = settings.final_logit_softcapping

    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """[N], [N] -> [N, D]."""
        inputs = embedded(self.model.embed_tokens, tokens)
        ropes = {
            kind: rotations(positions, rope.inverse_frequencies(self.head_dim, tokens.device), inputs.dtype)
            for kind, rope in self.settings.rope_parameters.items()
        }
        hidden: Tensor = self.model(inputs, [ropes[kind] for kind in self.settings.kinds], attend)
        return hidden


def embedded(embed_tokens: nn.Embedding, tokens: Tensor) -> Tensor:
    """Embeddings times ``sqrt(D)``; [N] -> [N, D]. The factor is rounded to their dtype, as it was in training."""
    rows: Tensor = embed_tokens(tokens)
    return rows * torch.full((), embed_tokens.embedding_dim**0.5, dtype=rows.dtype, device=tokens.device)


class Gemma3(DecoderFamily):
    """The ``gemma3`` family."""

    architectures = ("Gemma3ForCausalLM",)
    settings = Gemma3Config
    module = Gemma3ForCausalLM
    tiny: ClassVar[dict[str, Any]] = {
        "vocab_size": 320,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "query_pre_attn_scalar": 12,
        "sliding_window": 8,
        "sliding_window_pattern": 3,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "final_logit_softcapping": 30.0,
    }
