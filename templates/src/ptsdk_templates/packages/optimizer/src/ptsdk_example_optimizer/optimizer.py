"""The optimizer itself, imported when a job says ``optimizer: {use: example-optimizer, lr: 1e-3}``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from ptsdk.contracts.optimizer import Optimizer
from pydantic import Field
from torch import nn


class ExampleSteps(torch.optim.Optimizer):
    """``m = momentum m + (1 - momentum) g``, then ``p -= lr sign(m)``."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None  # the trainer has the gradients before it steps
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"], group["momentum"])

    def _update(self, parameter: nn.Parameter, gradient: torch.Tensor, lr: float, momentum: float) -> None:
        # All memory is in self.state, as tensors: the run stores it in safetensors and resumes from it.
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        mean = state["mean"].lerp_(gradient, 1 - momentum)
        parameter.sub_(mean.sign(), alpha=lr)


class ExampleOptimizer(Optimizer):
    """Signum (arXiv:1802.04434): each weight moves by the learning rate, whatever its gradient's size."""

    # `lr` is every optimizer's. A schedule scales it in the groups, so read it there at each step.
    momentum: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients")

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Of all trainable parameters; their names are there for those who treat some differently."""
        return ExampleSteps(parameters.values(), self.lr, self.momentum)
