"""What ptsdk-example-reward contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_rewards() -> list[Spec]:
    """A reward."""
    return [
        Spec(
            "example-reward",
            "ptsdk_example_reward.reward:ExampleReward",
            "The share of wanted words that a completion has",
        )
    ]
