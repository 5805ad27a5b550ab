"""The reward itself, imported when a job says ``rewards: [{use: example-reward, words: [yes]}]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ptsdk.contracts.reward import Reward
from pydantic import Field


class ExampleReward(Reward):
    """How many of some words a completion has, as a share of them: 0 to 1."""

    # An option without a default is required. `examples` are what conformance suites try it with.
    words: list[str] = Field(min_length=1, examples=[["the", "and"]], description="the words that are wanted")

    def score(self, completions: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[float]:
        """A finite number for each completion, in order. ``rows`` are the data rows of their prompts:
        a column of them may hold the answer."""
        return [sum(word in text for word in self.words) / len(self.words) for text in completions]
