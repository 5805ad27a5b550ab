"""The parts every decoder shares: the pre-norm block, the stack of blocks, the model around it.

A block is a callable of ``(hidden_states, rope, attend)`` and nothing else, whatever the family:
that is the unit that activation checkpointing, sharding and compiling wrap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ptsdk.nn.attention import Attend
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.config import DecoderConfig, RotaryConfig
from ptsdk.nn.head import Head
from ptsdk.nn.norm import RMSNorm
from ptsdk.nn.rope import Rope, rotations
from ptsdk.nn.self_attention import Attention


class PreNormBlock(nn.Module):
    """``x += attention(norm(x)); x += mlp(norm(x))``, with norms of the given ``width`` and ``eps``."""

    def __init__(
        self,
        attention: Attention,
        mlp: nn.Module,
        width: int,
        eps: float,
        norm: Callable[[int, float], nn.Module] = RMSNorm,
    ) -> None:
        super().__init__()
        self.input_layernorm = norm(width, eps)
        self.self_attn = attention
        self.post_attention_layernorm = norm(width, eps)
        self.mlp = mlp

    def forward(self, hidden_states: Tensor, rope: Rope, attend: Attend) -> Tensor:
        """[N, D] -> [N, D]."""
        hidden_states = hidden_states + self.self_attn(self.input_layernorm(hidden_states), rope, attend)
        hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states


class Decoder(nn.Module):
    """Embedding, blocks and final norm, under the names ``embed_tokens``, ``layers``, ``norm``.

    The embedding has no padding row: there is no padding, so every id that is read is learned
    (transformers gives the id ``pad_token_id`` no gradient, even where it is the end of turn).
    """

    def __init__(self, embed_tokens: nn.Embedding, layers: Iterable[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.embed_tokens = embed_tokens
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, hidden_states: Tensor, ropes: Sequence[Rope], attend: Attend) -> Tensor:
        """Embedded tokens [N, D] and one rotation a block -> hidden states [N, D]."""
        for block, rope in zip(self.layers, ropes, strict=True):
            hidden_states = block(hidden_states, rope, attend)
        normed: Tensor = self.norm(hidden_states)
        return normed


class DecoderLM(CausalLM):
    """A ``Decoder`` named ``model`` and, unless tied, an ``lm_head``.

    A family builds ``decoder`` in its constructor and writes ``hidden_states``.

    Args:
        settings: the shape, checked.
        config: config.json's keys as given, which exports carry on.
    """

    norm_init: float = 1.0
    """What the weights of norms start from."""
    softcap: float | None = None

    def __init__(self, settings: DecoderConfig, config: Mapping[str, Any], decoder: Decoder) -> None:
        super().__init__()
        self.settings = settings
        self.config = dict(config)
        self.vocab_size = settings.vocab_size
        self.num_layers = settings.num_hidden_layers
        self.num_kv_heads = settings.kv_heads
        self.head_dim = settings.head_size
        self.model = decoder
        self.lm_head = (
            None if settings.tie_word_embeddings else nn.Linear(settings.hidden_size, settings.vocab_size, bias=False)
        )

    def head(self) -> Head:
        """See ``CausalLM.head``."""
        module = self.model.embed_tokens if self.lm_head is None else self.lm_head
        return Head(module.weight, softcap=self.softcap)

    def ignores(self, name: str) -> bool:
        """Old checkpoints hold the frequencies of the rotation in every block."""
        return name.endswith("rotary_emb.inv_freq")

    def tied(self) -> dict[str, str]:
        """See ``CausalLM.tied``."""
        return {"lm_head.weight": "model.embed_tokens.weight"} if self.lm_head is None else {}

    @torch.no_grad()
    def init_weight(self, name: str, weight: Tensor, generator: torch.Generator) -> None:
        """Matrices from N(0, ``initializer_range``), biases 0, norms ``norm_init``, as transformers."""
        if name.endswith(".bias"):
            weight.zero_()
        elif weight.ndim == 1:
            weight.fill_(self.norm_init)
        else:
            weight.normal_(0.0, self.settings.initializer_range, generator=generator)


class RotaryLM(DecoderLM):
    """One rotation for all blocks: the usual case, with nothing else to write."""

    settings: RotaryConfig

    def embedded(self, tokens: Tensor) -> Tensor:
        """What the first block gets: [N] -> [N, D]."""
        rows: Tensor = self.model.embed_tokens(tokens)
        return rows

    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """[N], [N] -> [N, D]."""
        embedded = self.embedded(tokens)
        inv_freq = self.settings.rope_parameters.inverse_frequencies(self.head_dim, tokens.device)
        rope = rotations(positions, inv_freq, embedded.dtype)
        hidden: Tensor = self.model(embedded, [rope] * self.num_layers, attend)
        return hidden
