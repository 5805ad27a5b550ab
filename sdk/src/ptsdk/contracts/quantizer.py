"""Quantizers: weights in fewer bits, before training (QLoRA) or after it (QAT)."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from ptsdk.contracts.component import Component
from ptsdk.nn.causal_lm import CausalLM


@runtime_checkable
class Packs(Protocol):
    """A module that holds its weights in another form than checkpoints do.

    Its parameters have the checkpoint's names and shapes while they are on the meta device; each
    is packed when its tensor arrives, so no second full-precision copy is ever alive.
    """

    def pack(self, leaf: str, tensor: Tensor) -> nn.Parameter:
        """The parameter to hold in place of ``leaf``, made of the checkpoint's ``tensor`` (or of
        one process's rows of it), on its device."""


class Quantizer(Component):
    """The ``quantizer:`` section."""

    kind: ClassVar[str] = "quantizer"

    @abstractmethod
    def prepare(self, model: CausalLM) -> None:
        """Swap modules in place, on the meta device, before the adapter and before loading. A
        swapped module is still an ``nn.Linear`` to the adapter; it may be one that ``Packs``."""

    def convert(self, model: CausalLM) -> None:
        """After training: turn what ``prepare`` inserted into what is served."""
