"""Sums over micro-batches and processes, and what they come to per unit of weight."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ptsdk.contracts.loss import LossOutput, Ratio
from ptsdk.nn.batch import IGNORE, Batch

COUNTS = ("weight", "loss", "tokens", "supervised_tokens")
OF = "count of "
"""In front of a metric's name: what it is divided by, where that is not the weight."""


class Tally:
    """Adds up loss outputs on the device; ``reduce`` is the only point of synchronisation."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}

    def add(self, output: LossOutput, batch: Batch) -> None:
        """Count one micro-batch; a filler counts nothing."""
        values: dict[str, Tensor | int] = {
            "weight": output.weight,
            "loss": output.sum,
            "tokens": batch.tokens.numel(),
            "supervised_tokens": (batch.labels != IGNORE).sum(),
        }
        for name, metric in output.metrics.items():
            values |= {name: metric.sum, OF + name: metric.count} if isinstance(metric, Ratio) else {name: metric}
        for name, value in values.items():
            number = torch.as_tensor(value, device=self.device).detach().double()
            if not batch.live:
                number = torch.zeros_like(number)
            self.sums[name] = self.sums[name] + number if name in self.sums else number

    def reduce(self, all_reduce: Callable[[Tensor], Tensor]) -> Totals:
        """The sums over all processes, on the host."""
        names = [*COUNTS, *sorted(set(self.sums) - set(COUNTS))]
        values: list[float] = all_reduce(torch.stack([self.sums[name] for name in names])).tolist()
        return Totals(dict(zip(names, values, strict=True)))


class Totals:
    """Host numbers of one step, or of one pass over the validation data."""

    def __init__(self, sums: dict[str, float]) -> None:
        self.weight = sums.pop("weight")
        self.tokens = int(sums.pop("tokens"))
        self.supervised_tokens = int(sums.pop("supervised_tokens"))
        self._counts = {name.removeprefix(OF): sums.pop(name) for name in list(sums) if name.startswith(OF)}
        self._sums = sums

    def means(self) -> dict[str, float]:
        """The loss and every metric, divided by the weight or by its own count; a metric of nothing
        is left out."""
        counts = {name: self._counts.get(name, self.weight) for name in self._sums}
        return {name: value / counts[name] for name, value in self._sums.items() if counts[name]}
