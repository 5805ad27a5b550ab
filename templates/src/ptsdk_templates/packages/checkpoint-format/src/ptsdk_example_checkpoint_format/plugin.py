"""What ptsdk-example-checkpoint-format contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import CheckpointFormatSpec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_checkpoint_formats() -> list[CheckpointFormatSpec]:
    """A checkpoint format."""
    return [
        CheckpointFormatSpec(
            "example-checkpoint-format",
            "ptsdk_example_checkpoint_format.format:ExampleFormat",
            "A NumPy archive of weights beside its config",
            suffixes=(".npz",),
        )
    ]
