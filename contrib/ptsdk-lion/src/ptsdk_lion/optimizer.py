"""Lion: the sign of a mean of gradients, with one number of state a weight where AdamW has two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ptsdk.builtin.optimizers import Betas, Groups, decay_groups
from ptsdk.contracts.optimizer import Optimizer


class LionSteps(torch.optim.Optimizer):
    """Algorithm 2 of "Symbolic discovery of optimization algorithms" (arXiv:2302.06675)."""

    def __init__(self, groups: Groups, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None  # the trainer has the gradients before it steps
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state, lr, (beta1, beta2) = self.state[parameter], group["lr"], group["betas"]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.sub_(state["mean"].lerp(gradient, 1 - beta1).sign_().mul_(lr))
        state["mean"].lerp_(gradient, 1 - beta2)


class Lion(Optimizer):
    """Lion (arXiv:2302.06675). The paper takes a third to a tenth of AdamW's ``lr`` and as much more
    ``weight_decay``."""

    lr: float = Field(2e-5, ge=0, description="peak learning rate: what a weight moves by in a step")
    betas: Betas = Field((0.9, 0.99), description="decay of the mean of gradients: as a step uses it, as it is kept")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of matrices")

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Matrices with decay, norms and biases without, as AdamW here."""
        return LionSteps(decay_groups(parameters, self.weight_decay), self.lr, self.betas)
