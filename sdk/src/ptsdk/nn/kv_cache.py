"""Keys and values of sequences that grow, in slots behind the ``Attend`` seam.

Rows of a decode step are the first slots, in order, so that nothing is gathered: when a row ends,
the last one moves into its slot. A layer with a sliding window keeps that window alone, as a ring.

S slots, B live rows, N tokens, H query heads, K key/value heads, E head size, C capacity of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from ptsdk.nn.attention import Documents


class Layer(NamedTuple):
    """What one block remembers: keys and values, each [S, K, C, E]. Position p is at p mod C."""

    keys: Tensor
    values: Tensor

    @property
    def capacity(self) -> int:
        """C."""
        return self.keys.shape[2]


class KVCache:
    """Room for ``slots`` sequences of at most ``max_len`` tokens.

    A layer gets its storage at its first prefill, in the shape, dtype and device of its keys and
    values: S * min(max_len, window) * K * E numbers each.
    """

    def __init__(self, slots: int, max_len: int) -> None:
        self.slots, self.max_len = slots, max_len
        self._layers: dict[int, Layer] = {}

    def prefill(self, seq_lens: Sequence[int], slots: Sequence[Sequence[int]]) -> Prefill:
        """Attention of whole documents, each remembered in its slots (several for equal prompts).

        Raises:
            ValueError: a document or a slot that there is no room for.
        """
        if max(seq_lens, default=0) > self.max_len:
            raise ValueError(f"a document of {max(seq_lens)} tokens does not fit into {self.max_len}")
        if any(slot not in range(self.slots) for group in slots for slot in group):
            raise ValueError(f"slots {slots} are not all among the {self.slots} of the cache")
        return Prefill(self, Documents(tuple(seq_lens)), tuple(tuple(group) for group in slots))

    def decode(self, positions: Sequence[int], device: torch.device) -> Decode:
        """Attention of one new token in each of the first slots.

        Args:
            positions: of the new tokens, counting from 0 in each sequence; all before it are there.
            device: where the model is.

        Raises:
            ValueError: more rows than slots, or a position that there is no room for.
        """
        if len(positions) > self.slots or max(positions) >= self.max_len:
            raise ValueError(f"positions {list(positions)} do not fit into {self.slots} x {self.max_len}")
        return Decode(self, torch.tensor(positions, device=device), max(positions) + 1, min(positions) + 1)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of slot ``source`` to slot ``target``."""
        for layer in self._layers.values():
            used = min(length, layer.capacity)
            for tensor in layer:
                tensor[target, :, :used] = tensor[source, :, :used]

    def layer(self, index: int) -> Layer:
        """The storage of a block that was prefilled."""
        return self._layers[index]

    def allocated(self, index: int, k_NKE: Tensor, v_NKE: Tensor, window: int | None) -> Layer:
        """The storage of a block, made for such keys and values where there is none yet."""
        if index not in self._layers:
            capacity = self.max_len if window is None else min(window, self.max_len)
            # Zeros, not garbage: what is masked still meets a weight of 0, and 0 * nan is nan.
            keys, values = (t.new_zeros(self.slots, t.shape[1], capacity, t.shape[2]) for t in (k_NKE, v_NKE))
            self._layers[index] = Layer(keys, values)
        return self._layers[index]


@dataclass(frozen=True)
class Prefill:
    """``Documents``, whose keys and values are remembered."""

    cache: KVCache
    documents: Documents
    slots: tuple[tuple[int, ...], ...]

    def __call__(
        self, layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """See ``Attend``."""
        storage = self.cache.allocated(layer, k_NKE, v_NKE, window)
        for new_NKE, kept in ((k_NKE, storage.keys), (v_NKE, storage.values)):
            for document, slots in zip(torch.split(new_NKE, list(self.documents.seq_lens)), self.slots, strict=True):
                self._remember(document, kept, slots)
        return self.documents(layer, q_NHE, k_NKE, v_NKE, scale=scale, window=window)

    @staticmethod
    def _remember(document: Tensor, kept: Tensor, slots: tuple[int, ...]) -> None:
        length, capacity = len(document), kept.shape[2]
        first = max(0, length - capacity)
        places = torch.arange(first, length, device=kept.device) % capacity
        for slot in slots:
            kept[slot][:, places] = document[first:].transpose(0, 1)


@dataclass(frozen=True)
class Decode:
    """Row b is the next token of slot b. Queries of a group share their keys, which are not repeated."""

    cache: KVCache
    positions: Tensor
    longest: int
    shortest: int
    _masks: dict[int, Tensor] = field(default_factory=dict)

    def __call__(
        self, layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """See ``Attend``."""
        storage = self.cache.layer(layer)
        rows, heads, size = q_NHE.shape
        row, place = torch.arange(rows, device=q_NHE.device), self.positions % storage.capacity
        storage.keys[row, :, place] = k_NKE
        storage.values[row, :, place] = v_NKE
        used = min(self.longest, storage.capacity)
        keys, values = storage.keys[:rows, :, :used], storage.values[:rows, :, :used]
        # The group of queries [G, E] that shares a key head stands where a sequence of queries would.
        grouped = q_NHE.view(rows, keys.shape[1], heads // keys.shape[1], size)
        mixed = sdpa(grouped, keys, values, attn_mask=self._mask(used), scale=scale)
        return mixed.reshape(rows, heads, values.shape[3])

    def _mask(self, used: int) -> Tensor | None:
        """[B, 1, 1, used], True where a row has something; None where all have."""
        if self.shortest >= used:
            return None
        if used not in self._masks:
            places = torch.arange(used, device=self.positions.device)
            self._masks[used] = (places <= self.positions[:, None])[:, None, None]
        return self._masks[used]
