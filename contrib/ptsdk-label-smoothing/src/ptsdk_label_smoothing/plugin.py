"""What ptsdk-label-smoothing contributes.

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
            "label-smoothing",
            "ptsdk_label_smoothing.loss:LabelSmoothing",
            "Cross-entropy that leaves a share of the target to all other tokens (arXiv:1512.00567)",
            objective="token",
        )
    ]
