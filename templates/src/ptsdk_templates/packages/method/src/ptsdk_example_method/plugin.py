"""What ptsdk-example-method contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import MethodSpec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_methods() -> list[MethodSpec]:
    """A training method."""
    return [
        MethodSpec(
            "example-method",
            "ptsdk_example_method.method:ExampleMethod",
            "Supervised fine-tuning in which every document counts alike",
            objective="token",
            default_loss="cross_entropy",
        )
    ]
