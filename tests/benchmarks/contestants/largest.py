"""The largest tensor that a step of our job makes, as a part of one float32 [N, V]: of all logits there is none."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ptsdk
from ptsdk.nn.batch import IGNORE
from tests.benchmarks.contestants.report import FOLDER, told


class Largest(TorchDispatchMode):
    """Remembers how many bytes the largest result of any operation has, weights left out."""

    def __init__(self, of_weights: set[int]) -> None:
        super().__init__()
        self.of_weights, self.bytes = of_weights, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.numel() not in self.of_weights:
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return result


def main() -> None:
    from ptsdk.train.trainer import Trainer

    step, seen = Trainer.step, []

    def watched(trainer: Trainer, micro_batches: Any) -> dict[str, float]:
        models = (trainer.run.model, *trainer.run.frozen.values())
        with Largest({p.numel() for model in models for p in model.parameters()}) as mode:
            metrics = step(trainer, micro_batches)
        rows = max(int((batch.labels != IGNORE).sum()) for batch in micro_batches)
        seen.append(mode.bytes / (rows * trainer.run.model.vocab_size * 4))
        return metrics

    Trainer.step = watched  # type: ignore[method-assign]
    ptsdk.run(FOLDER / "job.yaml", ["train.steps=1"], overwrite=True)
    told(largest_of_all_logits=max(seen))


main()
