"""Scores of a few completions."""

from __future__ import annotations

from ptsdk.testing import RewardSuite

from ptsdk_example_reward.reward import ExampleReward


class TestConforms(RewardSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-reward/example-reward"  # dist/name


def test_the_share_of_wanted_words() -> None:
    reward = ExampleReward(words=["cat", "mat"])
    assert reward.score(["the cat", "cat on mat", "dog"], [{}, {}, {}]) == [0.5, 1.0, 0.0]
