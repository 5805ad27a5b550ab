"""What ptsdk-example-tokenizer contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_tokenizers() -> list[Spec]:
    """A tokenizer."""
    return [
        Spec(
            "example-tokenizer",
            "ptsdk_example_tokenizer.tokenizer:ExampleTokenizer",
            "Byte pairs learned from a text file",
        )
    ]
