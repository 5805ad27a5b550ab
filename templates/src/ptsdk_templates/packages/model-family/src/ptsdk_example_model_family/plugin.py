"""What ptsdk-example-model-family contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import ModelFamilySpec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_model_families() -> list[ModelFamilySpec]:
    """A model family."""
    return [
        ModelFamilySpec(
            "example-model-family",
            "ptsdk_example_model_family.model:ExampleFamily",
            "A decoder with squared ReLU in its feed-forward layers",
            architectures=("ExampleForCausalLM",),
        )
    ]
