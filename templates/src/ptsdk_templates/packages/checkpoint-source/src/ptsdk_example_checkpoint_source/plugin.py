"""What ptsdk-example-checkpoint-source contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import CheckpointSourceSpec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_checkpoint_sources() -> list[CheckpointSourceSpec]:
    """A checkpoint source."""
    return [
        CheckpointSourceSpec(
            "example-checkpoint-source",
            "ptsdk_example_checkpoint_source.source:ExampleSource",
            "example-checkpoint-source://NAME, a folder below $MODEL_SHELF",
            schemes=("example-checkpoint-source",),
        )
    ]
