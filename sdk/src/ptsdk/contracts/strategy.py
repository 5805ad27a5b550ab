"""Strategies: how a run is spread over processes and devices."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ptsdk.contracts.component import Component
from ptsdk.nn.causal_lm import CausalLM


@dataclass(frozen=True)
class World:
    """This process among all of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to loggers."""
        return self.rank == 0


class Strategy(Component):
    """The ``strategy:`` section. Every method is called by all processes together."""

    kind: ClassVar[str] = "strategy"

    @abstractmethod
    def setup(self) -> World:
        """Join the other processes.

        Raises:
            UserError: this strategy cannot run in so many processes.
        """

    def exchanging(self) -> AbstractContextManager[None]:
        """Around a whole run: what it raises inside where a process has ended, or does not come, is told
        as a ``LostProcess``."""
        return nullcontext()

    def device_type(self) -> str:
        """The type of device that a run here would train on (``cpu``, ``cuda``, ...), told without joining
        anyone; by default this machine's accelerator, if it has one."""
        found = torch.accelerator.current_accelerator(check_available=True)
        return found.type if found else "cpu"

    @abstractmethod
    def wrap(self, model: CausalLM, world: World) -> CausalLM:
        """Shard or replicate the module, still on the meta device."""

    @abstractmethod
    def load(self, model: CausalLM, tensors: Mapping[str, Tensor], world: World, dtype: torch.dtype) -> None:
        """Fill the parameters named in ``tensors`` (full tensors, read lazily).

        One still on the meta device gets storage in ``dtype`` on the world's device; one that has
        storage keeps it, and its dtype: that is how a checkpoint is restored.
        """

    @abstractmethod
    def all_reduce(self, values: Tensor) -> Tensor:
        """The elementwise sum of a float64 vector over all processes."""

    @abstractmethod
    def grad_norm(self, parameters: list[torch.nn.Parameter]) -> Tensor:
        """The 2-norm over the gradients of all parameters and processes; scalar float32. See ``total_norm``."""

    @abstractmethod
    def gather(self, model: CausalLM, names: list[str]) -> dict[str, Tensor]:
        """Full tensors on the CPU by name, on the main process (others get an empty dict)."""

    @abstractmethod
    def gather_optimizer(self, model: CausalLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """``{"state": {parameter name: {key: full tensor or number}}}`` on the main process."""

    @abstractmethod
    def load_optimizer(self, model: CausalLM, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """The inverse of ``gather_optimizer``."""

    def unsharded(self, model: CausalLM) -> AbstractContextManager[None]:
        """Inside, a forward of ``model`` needs no other process: for generation, where each does
        another number of steps."""
        return nullcontext()

    def broadcast(self, value: Any) -> Any:
        """The main process's ``value`` on every process."""
        return value

    def collect(self, value: Any) -> list[Any]:
        """Every process's ``value``, by rank, on every process."""
        return [value]

    def barrier(self) -> None:
        """Wait for every process."""

    def close(self) -> None:
        """Leave the process group."""


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all numbers of some plain tensors: a scalar, summed in float32 at least.

    ``torch.nn.utils.get_total_norm`` has the dtype of its tensors, and of a norm in bfloat16 three digits are right.
    """
    if not tensors:
        return torch.zeros(())
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors), 2, dtype=wide)))
    return norm
