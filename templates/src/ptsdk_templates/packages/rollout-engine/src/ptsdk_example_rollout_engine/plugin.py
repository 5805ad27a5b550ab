"""What ptsdk-example-rollout-engine contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_rollout_engines() -> list[Spec]:
    """A rollout engine."""
    return [
        Spec(
            "example-rollout-engine",
            "ptsdk_example_rollout_engine.rollout:ExampleEngine",
            "Generation without a cache: slow, and short enough to check others against",
        )
    ]
