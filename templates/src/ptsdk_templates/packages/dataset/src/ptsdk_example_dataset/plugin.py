"""What ptsdk-example-dataset contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import DatasetSpec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_datasets() -> list[DatasetSpec]:
    """A data set format."""
    return [
        DatasetSpec(
            "example-dataset",
            "ptsdk_example_dataset.dataset:ExampleDataset",
            "{question, answer}, loss on the answer and its end",
            objective="token",
        )
    ]
