"""Quantizers: weights in fewer bits, before training (QLoRA) or after it (QAT)."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from ptsdk.contracts.component import Component
from ptsdk.nn.causal_lm import CausalLM


class Quantizer(Component):
    """The ``quantizer:`` section."""

    kind: ClassVar[str] = "quantizer"

    @abstractmethod
    def prepare(self, model: CausalLM) -> None:
        """Swap modules in place, on the meta device, before the adapter and before loading.
        A swapped module packs its weight when it is loaded."""

    def convert(self, model: CausalLM) -> None:
        """After training: turn what ``prepare`` inserted into what is served."""
