"""One process on one device: what every other strategy must agree with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ptsdk.checkpoint.parts import map_parts
from ptsdk.checkpoint.weights import fill
from ptsdk.contracts.strategy import Strategy, World, total_norm
from ptsdk.errors import UserError
from ptsdk.nn.causal_lm import CausalLM


class Single(Strategy):
    """Everything in this process."""

    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = Field(
        "auto", description="where to train; auto is a GPU if any"
    )

    def setup(self) -> World:
        """Choose the device; refuse to be one of several processes that do not know each other."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size > 1:
            raise UserError(
                f"strategy single runs in one process, but {size} were started",
                hint="use a strategy for several processes (`ptsdk list strategy`), or start one process",
            )
        return World(rank=0, size=1, device=pick_device(self.device))

    def device_type(self) -> str:
        """See ``Strategy.device_type``; a wish is taken at its word."""
        return super().device_type() if self.device == "auto" else self.device

    def wrap(self, model: CausalLM, world: World) -> CausalLM:
        """As it is."""
        return model

    def load(self, model: CausalLM, tensors: Mapping[str, Tensor], world: World, dtype: torch.dtype) -> None:
        """Give each parameter its tensor: its first storage, or the values into what it has."""
        fill(model, tensors, world.device, dtype)

    def all_reduce(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def grad_norm(self, parameters: list[nn.Parameter]) -> Tensor:
        """The 2-norm of all gradients."""
        return total_norm([p.grad for p in parameters if p.grad is not None])

    def gather(self, model: CausalLM, names: list[str]) -> dict[str, Tensor]:
        """The parameters, detached, on the CPU."""
        return {name: model.get_parameter(name).detach().cpu() for name in names}

    def gather_optimizer(self, model: CausalLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state of each parameter under its name."""
        state = {
            name: {key: map_parts(_kept, value) if isinstance(value, Tensor) else value for key, value in entry.items()}
            for name, parameter in model.named_parameters()
            if (entry := optimizer.state.get(parameter))
        }
        return {"state": state}

    def load_optimizer(self, model: CausalLM, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Put each state back beside its parameter."""
        on_device = {p for g in optimizer.param_groups if g.get("fused") or g.get("capturable") for p in g["params"]}
        for name, entry in state["state"].items():
            parameter = model.get_parameter(name)
            optimizer.state[parameter] = {
                key: _beside(value, parameter, parameter in on_device) for key, value in entry.items()
            }


def pick_device(wish: str) -> torch.device:
    """The device of that name; for ``auto`` the accelerator torch sees, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if wish == "auto":
        return found or torch.device("cpu")
    if wish != "cpu" and (found is None or found.type != wish):
        raise UserError(
            f"strategy.device is {wish}, but torch {torch.__version__} sees no such device here",
            hint="set strategy.device=auto, or install a build of torch for this device",
        )
    return torch.device(wish)


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


def _beside(value: Any, parameter: nn.Parameter, scalars_too: bool) -> Any:
    """Optimizer state where torch keeps it: with its parameter; ``step`` on the CPU unless a fused
    or capturable update reads it on the device."""
    if not isinstance(value, Tensor):
        return value
    if not (value.ndim or scalars_too):
        return value.clone()
    return map_parts(lambda part: part.to(parameter.device), value)
