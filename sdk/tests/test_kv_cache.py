"""A cache changes nothing: what is decoded token by token is what a whole pass gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ptsdk.nn.attention import Attend
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.head import Head
from ptsdk.nn.kv_cache import KVCache
from ptsdk.nn.rope import inverse_frequencies, rotations
from ptsdk.nn.self_attention import SelfAttention


class Model(CausalLM):
    """Attention alone, each layer with a window of its own; float64, so that rounding hides nothing."""

    def __init__(self, windows: Sequence[int | None], heads: int = 4, kv_heads: int = 2) -> None:
        super().__init__()
        self.vocab_size, self.head_dim = 50, 8
        self.embed = nn.Embedding(50, 16)
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(
            SelfAttention(i, 16, heads, kv_heads, 8, window=window, scale=0.5) for i, window in enumerate(windows)
        )
        self.config = {}
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in self.double().parameters():
                parameter.normal_(0, 0.5)

    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        hidden: Tensor = self.embed(tokens)
        rope = rotations(positions, inverse_frequencies(8, 10.0), torch.float64)
        for layer in self.layers:
            hidden = hidden + layer(hidden, rope, attend)
        return hidden

    def head(self) -> Head:
        return Head(self.embed.weight)

    def init_weight(self, name: str, weight: Tensor, generator: torch.Generator) -> None:
        raise NotImplementedError


DOCUMENTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [8, 9], [7], [9, 3, 2, 3, 8, 4]]
GROWTH = [[10 + (7 * row + step) % 40 for step in range(9)] for row in range(len(DOCUMENTS))]

SHAPES = {
    "all before": ([None, None], 4, 2),
    "one key head": ([None, None], 4, 1),
    "not grouped": ([None], 4, 4),
    "narrow windows": ([3, None, 2], 4, 2),
    "window of one": ([1, 4], 2, 2),
    "window wider than the longest": ([100, 5], 4, 2),
}
shapes = pytest.mark.parametrize(("windows", "heads", "kv_heads"), SHAPES.values(), ids=SHAPES.keys())


def whole(model: Model, documents: Sequence[Sequence[int]]) -> list[Tensor]:
    """The states of whole passes, a document each."""
    return [model(Batch.pack([document])) for document in documents]


def step(model: Model, cache: KVCache, tokens: list[int], positions: list[int]) -> Tensor:
    attend = cache.decode(positions, torch.device("cpu"))
    return model.hidden_states(torch.tensor(tokens), torch.tensor(positions), attend)


def prefill(model: Model, cache: KVCache, documents: Sequence[Sequence[int]], slots: Sequence[Sequence[int]]) -> Tensor:
    hidden: Tensor = model(Batch.pack(documents), cache.prefill([len(d) for d in documents], slots))
    return hidden


@torch.no_grad()
@shapes
def test_decoding_ragged_rows_equals_whole_passes(windows: Any, heads: int, kv_heads: int) -> None:
    model, cache = Model(windows, heads, kv_heads), KVCache(5, 19)
    hidden = prefill(model, cache, DOCUMENTS, [[row] for row in range(len(DOCUMENTS))])
    torch.testing.assert_close(hidden, torch.cat(whole(model, DOCUMENTS)), rtol=1e-10, atol=1e-10)

    full = whole(model, [document + more for document, more in zip(DOCUMENTS, GROWTH, strict=True)])
    for i in range(9):
        places = [len(document) + i for document in DOCUMENTS]
        states = step(model, cache, [more[i] for more in GROWTH], places)
        expected = torch.stack([states[place] for states, place in zip(full, places, strict=True)])
        torch.testing.assert_close(states, expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
@shapes
def test_a_slot_forgets_what_was_in_it(windows: Any, heads: int, kv_heads: int) -> None:
    """A short document after a long one in the same slot, and rows beside it that come and go."""
    model, cache = Model(windows, heads, kv_heads), KVCache(2, 19)
    prefill(model, cache, [DOCUMENTS[0], DOCUMENTS[3]], [[0], [1]])
    for i in range(6):
        step(model, cache, [GROWTH[0][i], GROWTH[3][i]], [10 + i, 6 + i])
    prefill(model, cache, [DOCUMENTS[1]], [[0]])
    full = whole(model, [DOCUMENTS[1] + GROWTH[1], DOCUMENTS[3] + GROWTH[3]])
    both = step(model, cache, [GROWTH[1][0], GROWTH[3][6]], [2, 12])
    torch.testing.assert_close(both, torch.stack([full[0][2], full[1][12]]), rtol=1e-10, atol=1e-10)
    alone = step(model, cache, [GROWTH[1][1]], [3])
    torch.testing.assert_close(alone[0], full[0][3], rtol=1e-10, atol=1e-10)


@torch.no_grad()
@shapes
def test_a_row_that_moves_goes_on_as_before(windows: Any, heads: int, kv_heads: int) -> None:
    model, cache = Model(windows, heads, kv_heads), KVCache(3, 19)
    prefill(model, cache, DOCUMENTS[:3], [[0], [1], [2]])
    step(model, cache, [more[0] for more in GROWTH[:3]], [10, 2, 1])
    cache.move(2, 0, 2)
    full = whole(model, [DOCUMENTS[2] + GROWTH[2], DOCUMENTS[1] + GROWTH[1]])
    states = step(model, cache, [GROWTH[2][1], GROWTH[1][1]], [2, 3])
    torch.testing.assert_close(states, torch.stack([full[0][2], full[1][3]]), rtol=1e-10, atol=1e-10)


@torch.no_grad()
@shapes
def test_one_prompt_for_several_slots(windows: Any, heads: int, kv_heads: int) -> None:
    model, cache = Model(windows, heads, kv_heads), KVCache(3, 19)
    prefill(model, cache, [DOCUMENTS[0], DOCUMENTS[1]], [[0, 2], [1]])
    states = step(model, cache, [20, 21, 22], [10, 2, 10])
    full = whole(model, [[*DOCUMENTS[0], 20], [*DOCUMENTS[1], 21], [*DOCUMENTS[0], 22]])
    torch.testing.assert_close(states, torch.stack([rows[-1] for rows in full]), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_window_costs_its_width() -> None:
    model, cache = Model([3, None]), KVCache(2, 19)
    prefill(model, cache, [DOCUMENTS[0]], [[0]])
    assert [cache.layer(i).keys.shape for i in range(2)] == [(2, 2, 3, 8), (2, 2, 19, 8)]


def test_no_room_is_an_error() -> None:
    cache = KVCache(2, 4)
    with pytest.raises(ValueError, match="5 tokens does not fit into 4"):
        cache.prefill([5], [[0]])
    with pytest.raises(ValueError, match="not all among the 2"):
        cache.prefill([1], [[2]])
    with pytest.raises(ValueError, match="do not fit into 2 x 4"):
        cache.decode([4], torch.device("cpu"))
    with pytest.raises(ValueError, match="do not fit into 2 x 4"):
        cache.decode([1, 1, 1], torch.device("cpu"))
