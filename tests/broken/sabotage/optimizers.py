"""Optimizers: stochastic gradient descent with momentum, but."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ptsdk.contracts.optimizer import Optimizer


class Climbing(Optimizer):
    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters.values(), self.lr, momentum=0.5, maximize=True)


class Plain(torch.optim.Optimizer):
    """Momentum, written out so that it can be broken."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.first_lr = lr
        self.elsewhere: dict[nn.Parameter, Any] = {}
        self.hidden: list[nn.Parameter] = []

    def kept(self, parameter: nn.Parameter) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        return state

    def rate(self, group: dict[str, Any]) -> float:
        return float(group["lr"])

    def idle(self, parameter: nn.Parameter, lr: float) -> None:
        pass

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                lr = self.rate(group)
                if parameter.grad is None:
                    self.idle(parameter, lr)
                    continue
                state = self.kept(parameter)
                state["momentum"] = 0.5 * state.get("momentum", 0) + parameter.grad
                parameter -= lr * state["momentum"]
        for parameter in self.hidden:
            if parameter.grad is not None:
                parameter -= self.rate(self.param_groups[0]) * parameter.grad
                parameter.grad = None


class Hiding(Optimizer):
    """Norms are looked after outside the groups."""

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = Plain([p for p in parameters.values() if p.ndim > 1], self.lr)
        optimizer.hidden = [p for p in parameters.values() if p.ndim == 1]
        return optimizer


class ForgetfulSGD(Plain):
    def kept(self, parameter: nn.Parameter) -> dict[str, Any]:
        kept: dict[str, Any] = self.elsewhere.setdefault(parameter, {})
        return kept


class Forgetful(Optimizer):
    """Its state is where no checkpoint finds it."""

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        return ForgetfulSGD(parameters.values(), self.lr)


class FixedSGD(Plain):
    def rate(self, group: dict[str, Any]) -> float:
        return self.first_lr


class FixedRate(Optimizer):
    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        return FixedSGD(parameters.values(), self.lr)


class DecayingSGD(Plain):
    def idle(self, parameter: nn.Parameter, lr: float) -> None:
        parameter *= 1 - 0.1 * lr


class DecaysAll(Optimizer):
    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        return DecayingSGD(parameters.values(), self.lr)


class BakedSGD(Plain):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if not state:
                        state["momentum"] = torch.zeros_like(parameter)
                    state["momentum"].mul_(0.5).add_(parameter.grad)
                    parameter.sub_(state["momentum"], alpha=group["lr"])


class BakedRate(Optimizer):
    """Compiled, it keeps the first rate: inductor reads an ``alpha`` once."""

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        return BakedSGD(parameters.values(), self.lr)
