"""What ptsdk-example-loss contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import LossSpec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_losses() -> list[LossSpec]:
    """A loss."""
    return [
        LossSpec(
            "example-loss",
            "ptsdk_example_loss.loss:ExampleLoss",
            "Cross-entropy plus a term that presses on hard tokens (arXiv:2204.12511)",
            objective="token",
        )
    ]
