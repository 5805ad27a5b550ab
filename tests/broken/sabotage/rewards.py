"""Rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ptsdk.contracts.reward import Reward

Rows = Sequence[dict[str, Any]]


class Speechless(Reward):
    """No score for no words."""

    def score(self, completions: Sequence[str], rows: Rows) -> list[Any]:
        return [float(len(text)) if text else None for text in completions]


class Ranked(Reward):
    def score(self, completions: Sequence[str], rows: Rows) -> list[float]:
        longest = max(map(len, completions), default=0) or 1
        return [len(text) / longest for text in completions]


class Scribbling(Reward):
    def score(self, completions: Sequence[str], rows: Rows) -> list[float]:
        for row in rows:
            row["seen"] = True
        return [float(len(text)) for text in completions]
