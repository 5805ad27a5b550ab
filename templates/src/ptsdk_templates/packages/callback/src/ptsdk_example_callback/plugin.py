"""What ptsdk-example-callback contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_callbacks() -> list[Spec]:
    """A callback."""
    return [
        Spec(
            "example-callback",
            "ptsdk_example_callback.callback:ExampleCallback",
            "Stop once the loss is low enough",
        )
    ]
