"""How many floating-point operations a training step cannot do without: those of its matrix products.

A multiply-add is two. Of attention, only what is inside a document and not in the future; of the head, only the
rows that carry loss; nothing that is computed twice. Under LoRA the weights get no gradient, and the matrices
of the adapter are counted. The gradients of the first layer's inputs, which nobody needs, are counted all the
same: under 1 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def projections(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The (in, out) of the matrices of one layer."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads, head = config["num_attention_heads"], config["head_dim"]
    queries, keys = heads * head, config["num_key_value_heads"] * head
    attention = [(width, queries), (width, keys), (width, keys), (queries, width)]
    return [*attention, (width, inner), (width, inner), (inner, width)]


def visible(seq_lens: Sequence[int], window: int | None = None) -> int:
    """Pairs of a query and a key that it sees."""
    reach = [n if window is None else min(n, window) for n in seq_lens]
    return sum(w * (w + 1) // 2 + (n - w) * w for n, w in zip(seq_lens, reach, strict=True))


def parts(config: Mapping[str, Any], seq_lens: Sequence[int], scored: int, rank: int = 0) -> tuple[int, int, int]:
    """Of one pass: through the weights, through the adapter of ``rank``, in attention.

    Args:
        config: the keys of config.json.
        seq_lens: tokens of each document.
        scored: rows that are projected to the vocabulary.
        rank: of a LoRA on every linear layer; 0 is none.
    """
    tokens, layers = sum(seq_lens), config["num_hidden_layers"]
    matrices = projections(config)
    head = 2 * scored * config["hidden_size"] * config["vocab_size"]
    weights = 2 * tokens * layers * sum(a * b for a, b in matrices) + head
    adapter = 2 * tokens * layers * sum(rank * (a + b) for a, b in matrices)
    kinds = config.get("layer_types") or ["full_attention"] * layers
    windows = [config["sliding_window"] if kind == "sliding_attention" else None for kind in kinds]
    pairs = sum(visible(seq_lens, window) for window in windows)
    return weights, adapter, 4 * pairs * config["num_attention_heads"] * config["head_dim"]


def forward(config: Mapping[str, Any], seq_lens: Sequence[int], scored: int) -> int:
    """Of a pass without a backward."""
    return sum(parts(config, seq_lens, scored))


def training(config: Mapping[str, Any], seq_lens: Sequence[int], scored: int, rank: int = 0) -> int:
    """Of a forward and a backward: three times the forward, twice where a weight gets no gradient."""
    weights, adapter, attention = parts(config, seq_lens, scored, rank)
    return (2 if rank else 3) * weights + 3 * (adapter + attention)
