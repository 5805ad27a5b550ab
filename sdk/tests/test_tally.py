"""Sums over micro-batches: each metric over what it counts, fillers over nothing."""

from __future__ import annotations

import pytest
import torch

from ptsdk.contracts.loss import LossOutput, Ratio
from ptsdk.nn.batch import Batch
from ptsdk.train.tally import Tally

CPU = torch.device("cpu")


def output(total: float, weight: float, **metrics: tuple[float, float] | float) -> LossOutput:
    made = {
        name: Ratio(torch.tensor(value[0]), torch.tensor(value[1])) if isinstance(value, tuple) else torch.tensor(value)
        for name, value in metrics.items()
    }
    return LossOutput(torch.tensor(total), torch.tensor(weight), made)


def batch(tokens: int, live: bool = True) -> Batch:
    packed = Batch.pack([list(range(tokens))], [[True] * tokens])
    return Batch(packed.tokens, packed.positions, packed.labels, packed.seq_lens, live=live)


def test_a_metric_is_divided_by_the_weight_or_by_its_own_count() -> None:
    tally = Tally(CPU)
    tally.add(output(6.0, 2.0, plain=4.0, own=(5.0, 1.0)), batch(3))
    tally.add(output(2.0, 6.0, plain=8.0, own=(7.0, 3.0)), batch(5))
    totals = tally.reduce(lambda values: values)
    assert totals.means() == {"loss": 1.0, "plain": 1.5, "own": 3.0}
    assert (totals.weight, totals.tokens, totals.supervised_tokens) == (8.0, 8, 6)


def test_processes_are_summed_before_anything_is_divided() -> None:
    tally = Tally(CPU)
    tally.add(output(1.0, 1.0, own=(1.0, 1.0)), batch(3))
    other = Tally(CPU)
    other.add(output(5.0, 2.0, own=(9.0, 4.0)), batch(7))
    vectors: list[torch.Tensor] = []
    other.reduce(lambda values: vectors.append(values) or values)
    assert tally.reduce(lambda values: values + vectors[0]).means() == {"loss": 2.0, "own": 2.0}


def test_a_filler_counts_nothing_and_a_metric_of_nothing_is_left_out() -> None:
    tally = Tally(CPU)
    tally.add(output(3.0, 1.0, own=(0.0, 0.0)), batch(4))
    tally.add(output(100.0, 100.0, own=(100.0, 100.0)), batch(4, live=False))
    totals = tally.reduce(lambda values: values)
    assert totals.means() == pytest.approx({"loss": 3.0})
    assert totals.tokens == 4
