"""What ptsdk-lion contributes.

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
            "lion",
            "ptsdk_lion.optimizer:Lion",
            "The sign of a mean of gradients, half the state of AdamW (arXiv:2302.06675)",
            supports=frozenset({"compiled-step"}),
        )
    ]
