"""Strategies: one process, but."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ptsdk.builtin.single import Single
from ptsdk.contracts.strategy import World
from ptsdk.nn.causal_lm import CausalLM


class Doubling(Single):
    def all_reduce(self, values: Tensor) -> Tensor:
        return values * 2


class OneBitOff(Single):
    def gather(self, model: CausalLM, names: list[str]) -> dict[str, Tensor]:
        infinity = torch.tensor(math.inf)
        return {name: tensor.nextafter(infinity) for name, tensor in super().gather(model, names).items()}


class Negating(Single):
    """Gradients of the right length in the wrong direction."""

    def load(self, model: CausalLM, tensors: Any, world: World, dtype: torch.dtype) -> None:
        super().load(model, tensors, world, dtype)
        for parameter in model.parameters():
            parameter.register_hook(torch.neg)


class LargestGradient(Single):
    def grad_norm(self, parameters: list[nn.Parameter]) -> Tensor:
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], norm_type=math.inf)


class RoundedNorm(Single):
    """In the dtype of the gradients, as torch has it."""

    def grad_norm(self, parameters: list[nn.Parameter]) -> Tensor:
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


class LosesState(Single):
    def load_optimizer(self, model: CausalLM, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        zeros = {n: {k: torch.zeros_like(v) for k, v in entry.items()} for n, entry in state["state"].items()}
        super().load_optimizer(model, optimizer, {"state": zeros})
