"""Phi 3 and 4 (arXiv:2404.14219, 2412.08905, 2503.01743): config, attention, MLP, model, family.

N tokens, D width, F inside of the MLP, H query heads, K key/value heads, E head size. Parameters bear the names of
Hugging Face checkpoints, in which queries, keys and values are one matrix, and so are the gate and what it gates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from ptsdk.contracts.model import DecoderFamily
from ptsdk.nn.attention import Attend
from ptsdk.nn.config import DecoderConfig, rope_entry
from ptsdk.nn.decoder import Decoder, DecoderLM, PreNormBlock
from ptsdk.nn.mlp import gated
from ptsdk.nn.norm import RMSNorm
from ptsdk.nn.recompute import not_kept
from ptsdk.nn.self_attention import Attention
from ptsdk_phi.rope import PhiRope

LONG = ("su", "yarn")
"""What ``longrope`` was called before it had its name."""
ORIGINAL = "original_max_position_embeddings"


class Phi3Config(DecoderConfig):
    """config.json of a Phi3ForCausalLM, with the defaults of transformers."""

    older_keys = frozenset({"rope_theta", "rope_scaling", "partial_rotary_factor"})

    architectures: tuple[str, ...] = ("Phi3ForCausalLM",)
    model_type: Literal["phi3"] = "phi3"
    vocab_size: PositiveInt = 32_064
    hidden_size: PositiveInt = 3072
    intermediate_size: PositiveInt = 8192
    num_hidden_layers: PositiveInt = 32
    num_attention_heads: PositiveInt = 32
    head_dim: None = Field(None, description="not a key of Phi: heads split the width")
    max_position_embeddings: PositiveInt = 4096
    original_max_position_embeddings: PositiveInt = 4096
    rms_norm_eps: float = Field(1e-5, ge=0)
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 32_000
    pad_token_id: int | None = 32_000
    hidden_act: Literal["silu"] = "silu"
    sliding_window: PositiveInt | None = None
    resid_pdrop: float = Field(0.0, ge=0, le=0, description="not implemented: it must be 0")
    embd_pdrop: float = Field(0.0, ge=0, le=0, description="not implemented: it must be 0")
    rope_parameters: PhiRope

    @model_validator(mode="before")
    @classmethod
    def _fold_older_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        config = dict(config)
        theta, scaling = config.pop("rope_theta", 10_000.0), config.pop("rope_scaling", None)
        part = config.pop("partial_rotary_factor", None)
        entry = rope_entry(scaling or config.get("rope_parameters"), theta)
        if entry.get("rope_type") in LONG:
            entry["rope_type"] = "longrope"
        if part is not None:
            entry.setdefault("partial_rotary_factor", part)
        if entry.get("rope_type") == "longrope":
            config[ORIGINAL] = config.get(ORIGINAL) or entry.get(ORIGINAL) or 4096
            entry.setdefault(ORIGINAL, config[ORIGINAL])
        return {**config, "rope_parameters": entry}

    @model_validator(mode="after")
    def _rotation_fits(self) -> Self:
        rope = self.rope_parameters
        width = rope.turned(self.head_size)
        if width < 2 or width % 2:
            raise ValueError(f"partial_rotary_factor {rope.partial_rotary_factor} turns {width} of {self.head_size}")
        for key, factor in (("short_factor", rope.short_factor), ("long_factor", rope.long_factor)):
            if factor is not None and len(factor) != width // 2:
                raise ValueError(f"{key} has {len(factor)} numbers; heads turn {width // 2} pairs")
        if (
            rope.rope_type == "longrope"
            and rope.original_max_position_embeddings != self.original_max_position_embeddings
        ):
            raise ValueError(f"{ORIGINAL} is one number in rope_parameters and another beside them")
        return self


class Phi3Attention(Attention):
    """Grouped-query attention whose queries, keys and values are one projection."""

    def __init__(self, settings: Phi3Config, layer: int) -> None:
        super().__init__(layer, settings.head_size, window=settings.sliding_window)
        self.heads = (settings.num_attention_heads, settings.kv_heads, settings.kv_heads)
        self.qkv_proj = nn.Linear(settings.hidden_size, sum(self.heads) * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads[0] * self.head_dim, settings.hidden_size, bias=False)

    def project(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Attention.project``."""
        with not_kept(x_ND):
            all_NHE = self.qkv_proj(x_ND).unflatten(-1, (-1, self.head_dim))
        q_NHE, k_NKE, v_NKE = all_NHE.split(self.heads, dim=1)
        return q_NHE, k_NKE, v_NKE.contiguous()  # as a view it would keep all three until the backward


class Phi3MLP(nn.Module):
    """SwiGLU (arXiv:2002.05202) whose gate and what it gates are one projection."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(width, 2 * hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        with not_kept(x_ND):
            gate_NF, up_NF = self.gate_up_proj(x_ND).chunk(2, dim=-1)
        product_NF = gated(gate_NF, up_NF, silu)
        with not_kept(product_NF):
            hidden: Tensor = self.down_proj(product_NF)
        return hidden


class Phi3ForCausalLM(DecoderLM):
    """Pre-norm blocks of grouped-query attention and SwiGLU, one rotation for all of them."""

    settings: Phi3Config

    def __init__(self, settings: Phi3Config, config: Mapping[str, Any]) -> None:
        width, eps = settings.hidden_size, settings.rms_norm_eps
        blocks = (
            PreNormBlock(Phi3Attention(settings, layer), Phi3MLP(width, settings.intermediate_size), width, eps)
            for layer in range(settings.num_hidden_layers)
        )
        decoder = Decoder(nn.Embedding(settings.vocab_size, width), blocks, RMSNorm(width, eps))
        super().__init__(settings, config, decoder)

    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """[N], [N] -> [N, D]."""
        embedded = self.model.embed_tokens(tokens)
        longest = self.settings.max_position_embeddings
        rope = self.settings.rope_parameters.rotations(positions, self.head_dim, longest, embedded.dtype)
        hidden: Tensor = self.model(embedded, [rope] * self.num_layers, attend)
        return hidden


class Phi3(DecoderFamily):
    """The ``phi3`` family."""

    architectures = ("Phi3ForCausalLM",)
    settings = Phi3Config
    module = Phi3ForCausalLM
    tiny: ClassVar[dict[str, Any]] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "original_max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "sliding_window": 16,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.1, 1.5],
            "long_factor": [1.0, 2.0, 8.0],
        },
    }
