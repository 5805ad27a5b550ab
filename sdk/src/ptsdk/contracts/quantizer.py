"""Quantizers: training on weights in fewer bits (QLoRA), or as if they had them (QAT)."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ptsdk.contracts.component import Component
from ptsdk.nn.causal_lm import CausalLM


@runtime_checkable
class Packs(Protocol):
    """A module that holds its weights in another form than checkpoints do.

    Its parameters have the checkpoint's names, and from the meta device on the shape and dtype
    they are packed into: plain tensors whose row i holds row i of the weight, so that a strategy
    shards, gathers and copies them like any other. Each is packed when its tensor arrives, so at
    most one full-precision weight is alive.
    """

    def pack(self, leaf: str, tensor: Tensor) -> nn.Parameter:
        """The parameter to hold in place of ``leaf``, made of the checkpoint's whole ``tensor``, on
        its device. A strategy that shards packs first: then no number depends on the world size."""

    def unpacked(self, leaf: str) -> Tensor:
        """The tensor of ``leaf`` as a checkpoint would hold it, detached: of so many rows as the parameter
        has just now. Callers use ``weights.unpacked``, which hands over the rows of a shard."""

    def unpacked_shape(self, leaf: str) -> torch.Size:
        """The shape of ``leaf`` in checkpoints."""


class Quantizer(Component):
    """The ``quantizer:`` section: what it inserts is what a run trains with.

    A run never converts. Its checkpoints and ``final/`` hold plain weights under the checkpoint's names
    (``weights.stored_tensors``), as those of any run, for transformers, PEFT or any server to quantise.
    """

    kind: ClassVar[str] = "quantizer"

    @abstractmethod
    def prepare(self, model: CausalLM) -> None:
        """Swap modules in place, on the meta device, before the adapter and before loading. A
        swapped module is still an ``nn.Linear`` to the adapter; it may be one that ``Packs``."""

    def convert(self, model: CausalLM) -> None:
        """Turn what ``prepare`` inserted into layers to serve, in place, for whoever serves from Python: no run
        calls it. The live ``model`` has its weights and no adapter (merge it first); the outputs stay those that
        were trained with. By default what trains is served as it is."""
