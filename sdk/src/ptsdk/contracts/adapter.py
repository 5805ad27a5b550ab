"""Adapters: which weights train, and how what was trained is stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ptsdk.contracts.component import Component
from ptsdk.nn.causal_lm import CausalLM


class Adapter(Component):
    """The ``adapter:`` section; without one the built-in ``full`` trains every weight."""

    kind: ClassVar[str] = "adapter"
    keeps_base: ClassVar[bool] = True
    """Whether ``disabled`` gives back the model training started from, so that no copy is needed."""

    @abstractmethod
    def apply(self, model: CausalLM) -> None:
        """Change ``model`` in place, on the meta device, before weights are loaded.

        The base's parameters keep their names; the adapter's own are new. Sets
        ``requires_grad`` on exactly what trains.
        """

    def own(self, name: str) -> bool:
        """Whether the parameter of that name is the adapter's, not the checkpoint's."""
        return False

    def init(self, model: CausalLM, seed: int) -> None:
        """Give the adapter's own parameters storage and values, after the base was loaded.

        Those that ``apply`` made are on the meta device still: what was loaded is the base. Replace each by one on
        the device of the weight beside it: ``ptsdk.checkpoint.weights.replace_parameter(model, name, tensor)``
        keeps whether it trains. One that a strategy sharded is a ``DTensor``: the tensor is dealt out first, by
        ``distribute_tensor(tensor, parameter.device_mesh, parameter.placements)``. One that has storage is
        filled in place.

        Values are a function of ``seed`` and the parameter's name alone, so that no world size changes them:
        draw with ``ptsdk.checkpoint.weights.seeded(seed, name)``.
        """

    @abstractmethod
    def disabled(self, model: CausalLM) -> AbstractContextManager[None]:
        """Inside, the model is the base it started from.

        Raises:
            RunError: the base is gone (every weight trains).
        """

    @abstractmethod
    def save(self, tensors: Mapping[str, Tensor], folder: Path, base: str | None) -> None:
        """Write the adapter as PEFT reads it.

        Args:
            tensors: the adapter's own parameters by name, gathered and on the CPU.
            base: path of the base, for adapter_config.json.
        """

    @abstractmethod
    def load(self, folder: Path, model: CausalLM | None = None) -> dict[str, Tensor]:
        """What ``save`` wrote, by parameter name.

        Args:
            model: where given, the tensors are exactly its own parameters that ``own`` names.

        Raises:
            UserError: no adapter there, a damaged one, or one that does not fit.
        """

    @abstractmethod
    def merged(self, model: CausalLM) -> dict[str, Tensor]:
        """The state dict of the base with the adapter folded in; the live model is not touched."""

    @classmethod
    def from_peft(cls, adapter_config: Mapping[str, Any]) -> Adapter:
        """The adapter that an adapter_config.json describes.

        Raises:
            UserError: it asks for what this adapter does not do.
        """
        raise NotImplementedError
