"""Beside the engine of core, which has a cache and grows completions side by side."""

from __future__ import annotations

import pytest
import torch
from ptsdk.builtin.rollout import Local
from ptsdk.builtin.tiny import Tiny
from ptsdk.generate.sampling import SamplingParams
from ptsdk.testing import RolloutEngineSuite

from ptsdk_example_rollout_engine.rollout import ExampleEngine


class TestConforms(RolloutEngineSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-rollout-engine/example-rollout-engine"  # dist/name


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_completions_of_core(temperature: float) -> None:
    family = Tiny(config={})
    model = family.build(family.full_config(family.tiny_config())).eval()
    for name, weight in model.named_parameters():
        model.init_weight(name, weight, torch.Generator().manual_seed(len(name)))
    prompts = [[1, 2, 3], [4], [5, 6]]
    params = SamplingParams(max_new_tokens=5, temperature=temperature, seed=7, stop_ids=(9,))
    ours, theirs = (engine.generate(model, prompts, params) for engine in (ExampleEngine(), Local()))
    assert [one.tokens for one in ours] == [one.tokens for one in theirs]
    assert [one.finish_reason for one in ours] == [one.finish_reason for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
