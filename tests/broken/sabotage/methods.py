"""Methods: supervised fine-tuning, but."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ptsdk.builtin.sft import SFT
from ptsdk.contracts.loss import LossOutput
from ptsdk.data.example import Example
from ptsdk.nn.batch import Batch

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run


class LearnsNothing(SFT):
    def loss(self, run: Run, batch: Batch) -> LossOutput:
        output = super().loss(run, batch)
        return replace(output, sum=output.sum * 0 + output.sum.detach())


class LocalWeight(SFT):
    def loss(self, run: Run, batch: Batch) -> LossOutput:
        output = super().loss(run, batch)
        return LossOutput(output.sum / output.weight, torch.tensor(1.0))

    def validation_loss(self, run: Run, batch: Batch) -> LossOutput:
        return super().loss(run, batch)


class MeanOfValidation(SFT):
    def validation_loss(self, run: Run, batch: Batch) -> LossOutput:
        output = super().loss(run, batch)
        return LossOutput(output.sum / output.weight, torch.tensor(1.0))


class Counting(SFT):
    """Every second step counts a little more, and nothing of it is in a checkpoint."""

    def batches(self, run: Run) -> Iterator[list[Batch]]:
        for micro_batches in super().batches(run):
            run.scratch["counted"] = run.scratch.get("counted", 0) + 1
            yield micro_batches

    def loss(self, run: Run, batch: Batch) -> LossOutput:
        output = super().loss(run, batch)
        return replace(output, sum=output.sum * (1 + 0.01 * (run.scratch.get("counted", 0) % 3)))


class SupervisesAll(SFT):
    def collate(self, run: Run, examples: Sequence[Example]) -> Batch:
        documents = [document for example in examples for document in example.documents]
        return Batch.pack([d.tokens for d in documents], [[True] * len(d.tokens) for d in documents])


class SometimesMetrics(SFT):
    def loss(self, run: Run, batch: Batch) -> LossOutput:
        output = super().loss(run, batch)
        odd = batch.tokens.numel() % 2
        return replace(output, metrics={"odd": torch.tensor(1.0)} if odd else {})


class LiveFiller(SFT):
    def micro_batch(self, run: Run, data: Sequence[Example], indices: Sequence[int]) -> Batch:
        return self.collate(run, [data[i] for i in indices or [0]])
