"""What ptsdk-example-strategy contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_strategies() -> list[Spec]:
    """A strategy."""
    return [
        Spec(
            "example-strategy",
            "ptsdk_example_strategy.strategy:ExampleStrategy",
            "One process with a fixed number of CPU threads",
        )
    ]
