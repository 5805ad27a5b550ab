"""Several optimizers seen as one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise

import torch


class Composite(torch.optim.Optimizer):
    """Optimizers of disjoint parameters behind the face of one.

    Groups and state live here, so that a schedule, ``state_dict`` and a checkpoint meet a plain
    optimizer; a part borrows its share of them for the time of a step.

    Attributes:
        parts: the optimizers.
    """

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        super().__init__([dict(group) for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._groups = list(pairwise(accumulate((len(part.param_groups) for part in parts), initial=0)))

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every part."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index in range(len(self.parts)):
            self.step_part(index)
        return loss

    def step_part(self, index: int) -> None:
        """One step of the part of that number alone."""
        part, (start, end) = self.parts[index], self._groups[index]
        part.state, part.param_groups = self.state, self.param_groups[start:end]
        part.step()
