"""``train.optimizer_in_backward``: each weight is updated as soon as its gradient is complete.

The gradient is freed at once, so that at no time all of them are alive. That takes one micro-batch
a step and no clipping (a job that asks for more is refused), and the weight of the step is known
before its backward.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ptsdk.contracts.optimizer import Optimizer
from ptsdk.train.composite import Composite


def one_each(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> Composite:
    """An optimizer a parameter, so that each can step by itself."""
    return Composite([optimizer.build({name: parameter}) for name, parameter in parameters.items()])


class InBackward:
    """Hooks on the parameters of a ``one_each`` optimizer, for the life of the trainer.

    Args:
        norm: ``Strategy.grad_norm``, which knows where the rest of a gradient is.
    """

    def __init__(
        self, parameters: list[nn.Parameter], optimizer: Composite, norm: Callable[[list[nn.Parameter]], Tensor]
    ) -> None:
        self._optimizer, self._norm = optimizer, norm
        self._factor = 1.0
        self._square: Tensor = torch.zeros(())
        for index, parameter in enumerate(parameters):
            hook = functools.partial(self._update, index)
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def begin(self, weight: float) -> None:
        """The next backward is of a loss that is to be divided by ``weight``."""
        self._factor, self._square = 1 / weight if weight else 0.0, torch.zeros(())

    def grad_norm(self) -> float:
        """The 2-norm of the gradients of the last backward, after the division."""
        return math.sqrt(self._square.item())

    @torch.no_grad()
    def _update(self, index: int, parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        parameter.grad.mul_(self._factor)
        self._square = self._square + self._norm([parameter]).square()
        self._optimizer.step_part(index)
        parameter.grad = None
