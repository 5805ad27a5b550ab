"""Filters against transformers' warpers, draws against the distribution they are of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ptsdk.errors import RunError, UserError
from ptsdk.generate.sampling import SamplingParams, _invert, keep_likely, pick, sample, uniform


def random_logits(vocabulary: int, spread: float, rows: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(vocabulary)
    return torch.randn(rows, vocabulary, generator=generator) * spread


def warped(logits: Tensor, top_k: int | None, top_p: float | None, min_p: float | None) -> Tensor:
    """The same filters by transformers, in its order; 0 where a token is left out."""
    warpers: list[Any] = [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p else []
    warpers += [MinPLogitsWarper(min_p)] if min_p else []
    for warper in warpers:
        logits = warper(None, logits)
    return logits.softmax(-1)


@pytest.mark.parametrize("vocabulary", [7, 300, 5000])
@pytest.mark.parametrize("spread", [0.05, 1.0, 4.0])
@pytest.mark.parametrize(
    "filters",
    [
        {"top_k": 1},
        {"top_k": 5},
        {"top_k": 300},
        {"top_p": 0.01},
        {"top_p": 0.6},
        {"top_p": 0.97},
        {"min_p": 0.01},
        {"min_p": 0.3},
        {"top_k": 20, "top_p": 0.7},
        {"top_p": 0.9, "min_p": 0.2},
        {"top_k": 50, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=str,
)
def test_filters_are_those_of_transformers(vocabulary: int, spread: float, filters: dict[str, Any]) -> None:
    logits = random_logits(vocabulary, spread).double()
    kept = keep_likely(logits.softmax(-1), **filters)
    named = {"top_k": None, "top_p": None, "min_p": None} | filters
    expected = warped(logits, **named)
    assert torch.equal(kept > 0, expected > 0)
    torch.testing.assert_close(kept / kept.sum(-1, keepdim=True), expected)


def test_no_filter_changes_nothing() -> None:
    probs = random_logits(40, 1.0).softmax(-1)
    assert keep_likely(probs) is probs
    assert torch.equal(keep_likely(probs, top_k=40, top_p=1.0, min_p=0.0), probs)


@pytest.mark.parametrize("vocabulary", [3, 511, 512, 513, 1300])
def test_a_draw_is_where_the_cumulated_probability_passes(vocabulary: int) -> None:
    probs = random_logits(vocabulary, 2.0, rows=40).softmax(-1)
    probs = probs * (torch.rand(probs.shape, generator=torch.Generator().manual_seed(1)) < 0.5)
    probs[:, vocabulary // 2] += 0.01
    uniforms = torch.linspace(0, 1 - 2**-53, 40, dtype=torch.float64)
    tokens = pick(probs, uniforms)
    cumulated = (probs.double() / probs.double().sum(-1, keepdim=True)).cumsum(-1)
    rows = torch.arange(40)
    assert (probs[rows, tokens] > 0).all()
    assert (cumulated[rows, tokens] >= uniforms - 1e-6).all()
    assert (cumulated[rows, tokens] - probs[rows, tokens] / probs.sum(-1) <= uniforms + 1e-6).all()


def test_rounding_never_leads_past_the_last_possible_token() -> None:
    weights = torch.tensor([[0.0, 0.3, 0.7, 0.0]])
    for fraction, expected in ((0.0, 1), (1.0, 2)):
        index, rest = _invert(weights, torch.tensor([fraction], dtype=torch.float64))
        assert index.item() == expected
        assert 0 <= rest.item() <= 1


def test_draws_follow_the_distribution() -> None:
    probs = torch.tensor([0.5, 0.0, 0.2, 0.3]).repeat(20_000, 1)
    uniforms = torch.tensor([uniform(0, place, step) for place in range(200) for step in range(100)])
    counts = torch.bincount(pick(probs, uniforms.double()), minlength=4)
    expected = 20_000 * probs[0]
    chi2 = ((counts - expected)[expected > 0].square() / expected[expected > 0]).sum()
    assert counts[1] == 0
    assert chi2 < 13.8  # 2 degrees of freedom: 1 in 1000


def test_a_uniform_is_a_function_of_seed_place_and_step() -> None:
    grid = [(seed, place, step) for seed in range(8) for place in range(8) for step in range(8)]
    values = [uniform(*key) for key in grid]
    assert values == [uniform(*key) for key in grid]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 1 for value in values)
    assert uniform(1, 11, 1) != uniform(11, 1, 1) != uniform(1, 1, 11)


@pytest.mark.parametrize("temperature", [0.0, 1e-6, 0.7, 1.0, 3.0])
def test_log_probs_are_those_of_the_policy_itself(temperature: float) -> None:
    logits = random_logits(900, 5.0) + 300
    params = SamplingParams(temperature=temperature, top_k=12, top_p=0.8)
    tokens, log_probs = sample(logits, params, [uniform(3, row, 0) for row in range(6)])
    expected = logits.double().log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
    torch.testing.assert_close(log_probs.double(), expected, rtol=1e-5, atol=5e-5)
    if temperature < 0.1:
        assert torch.equal(tokens, logits.argmax(-1))


@pytest.mark.parametrize("filters", [{"top_k": 3}, {"top_p": 0.4}, {"min_p": 0.3}], ids=str)
def test_every_filter_is_applied_after_the_temperature(filters: dict[str, Any]) -> None:
    logits = random_logits(50, 1.0, rows=1)
    params = SamplingParams(temperature=0.5, **filters)
    tokens, _ = sample(logits.expand(3000, 50), params, [(row + 0.5) / 3000 for row in range(3000)])
    shares = torch.bincount(tokens, minlength=50) / 3000
    expected = warped(logits / 0.5, params.top_k, params.top_p, params.min_p)[0]
    assert torch.equal(shares > 0, expected > 0)
    torch.testing.assert_close(shares, expected, rtol=0, atol=1e-3)


def test_temperature_divides_logits() -> None:
    logits = random_logits(9, 1.0, rows=1).expand(4000, 9)
    tokens, _ = sample(logits, SamplingParams(temperature=2.5), [(row + 0.5) / 4000 for row in range(4000)])
    shares = torch.bincount(tokens, minlength=9) / 4000
    torch.testing.assert_close(shares, (logits[0] / 2.5).softmax(-1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error(bad: float, temperature: float) -> None:
    logits = random_logits(9, 1.0)
    logits[3, 4] = bad
    with pytest.raises(RunError, match="not finite"):
        sample(logits, SamplingParams(temperature=temperature), [0.5] * 6)


@pytest.mark.parametrize("temperature", [-1.0, 1e-9, math.inf])
def test_temperatures_that_nothing_can_be_divided_by(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature"):
        SamplingParams(temperature=temperature)


def test_every_option_out_of_range_is_named() -> None:
    with pytest.raises(UserError) as error:
        SamplingParams(max_new_tokens=0, temperature=math.nan, top_k=0, top_p=0.0, min_p=1.5)
    assert [problem.path for problem in error.value.problems] == [
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
    ]
