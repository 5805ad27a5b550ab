"""What ptsdk-example-adapter contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_adapters() -> list[Spec]:
    """An adapter."""
    return [
        Spec(
            "example-adapter",
            "ptsdk_example_adapter.adapter:ExampleAdapter",
            "A learned factor for each output of some layers (IA3, arXiv:2205.05638)",
        )
    ]
