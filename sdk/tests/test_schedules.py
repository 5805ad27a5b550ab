from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers import TrainingArguments, optimization

from ptsdk.builtin.schedules import WSD, Constant, Cosine, Linear
from ptsdk.errors import UserError

TOTALS = [(1, 0), (2, 1), (10, 0), (10, 3), (37, 5), (100, 100)]


def theirs(make, total, **options):
    """What the reference multiplies the learning rate by at each optimizer step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **options)
    factors = []
    for _ in range(total):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


def ours(schedule, total):
    return [schedule.factor(step, total) for step in range(total)]


@pytest.mark.parametrize(("total", "warmup"), TOTALS)
def test_constant_linear_and_cosine_are_those_of_transformers(total, warmup):
    steps = {"num_warmup_steps": warmup, "num_training_steps": total}
    constant = theirs(optimization.get_constant_schedule_with_warmup, total, num_warmup_steps=warmup)
    assert ours(Constant(warmup=warmup), total) == constant
    linear = theirs(optimization.get_linear_schedule_with_warmup, total, **steps)
    assert ours(Linear(warmup=warmup), total) == pytest.approx(linear, abs=1e-12)
    cosine = theirs(optimization.get_cosine_schedule_with_warmup, total, **steps)
    assert ours(Cosine(warmup=warmup), total) == pytest.approx(cosine, abs=1e-12)
    floor = theirs(optimization.get_cosine_with_min_lr_schedule_with_warmup, total, min_lr_rate=0.2, **steps)
    assert ours(Cosine(warmup=warmup, min_ratio=0.2), total) == pytest.approx(floor, abs=1e-12)


@pytest.mark.parametrize("shape", ["cosine", "linear", "1-sqrt"])
@pytest.mark.parametrize(("warmup", "decay", "total"), [(0, 1, 5), (3, 10, 40), (4, 6, 10)])
def test_wsd_is_that_of_transformers(shape, warmup, decay, total):
    reference = theirs(
        optimization.get_wsd_schedule, total, num_warmup_steps=warmup, num_decay_steps=decay,
        num_training_steps=total, decay_type=shape, min_lr_ratio=0.05,
    )  # fmt: skip
    schedule = WSD(warmup=warmup, decay=decay, min_ratio=0.05, shape=shape)
    assert ours(schedule, total) == pytest.approx(reference, abs=1e-12)
    assert schedule.factor(total, total) == pytest.approx(0.05)


@pytest.mark.parametrize(("warmup", "total"), [(0.03, 500), (0.1, 7), (0.07, 100), (12, 100), (0.0, 3)])
def test_a_warmup_means_as_many_steps_as_in_transformers(warmup, total, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), warmup_steps=warmup, use_cpu=True)
    assert Constant(warmup=warmup).warmup_steps(total) == arguments.get_warmup_steps(total)


def test_fractions_of_a_short_run_are_cut_to_fit():
    assert ours(WSD(warmup=0.5, decay=0.5, shape="linear"), 3) == [0.0, 0.5, 1.0]


def test_a_decay_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match=r"schedule\.decay: a decay of 90 steps does not fit: warm-up leaves 80 of 100"):
        WSD(warmup=20, decay=90).factor(0, 100)
    with pytest.raises(ValidationError, match="more than the whole run"):
        WSD(warmup=0.6, decay=0.5)
