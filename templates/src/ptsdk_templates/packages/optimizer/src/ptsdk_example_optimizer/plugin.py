"""What ptsdk-example-optimizer contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_optimizers() -> list[Spec]:
    """An optimizer."""
    return [
        Spec(
            "example-optimizer",
            "ptsdk_example_optimizer.optimizer:ExampleOptimizer",
            "The sign of the momentum (Signum, arXiv:1802.04434)",
        )
    ]
