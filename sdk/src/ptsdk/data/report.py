"""What became of the rows of a data set, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLACES = 5
"""How many places of a kind are kept: the first ones."""

PERCENTILES = (5, 25, 50, 75, 95, 99)


@dataclass
class Count:
    """How often something happened, and where first."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Once more, there."""
        self.count += 1
        if len(self.places) < PLACES:
            self.places.append(place)

    def merge(self, other: Count) -> None:
        """As often again as ``other``."""
        self.count += other.count
        self.places = [*self.places, *other.places][:PLACES]


@dataclass
class Tally:
    """Counts of the rows that went by."""

    rows: int = 0
    truncated: Count = field(default_factory=Count)
    dropped: dict[str, Count] = field(default_factory=dict)

    def drop(self, reason: str, place: str) -> None:
        """A row that is not used, and why."""
        self.dropped.setdefault(reason, Count()).add(place)

    def merge(self, other: Tally) -> None:
        """The rows of both."""
        self.rows += other.rows
        self.truncated.merge(other.truncated)
        for reason, count in other.dropped.items():
            self.dropped.setdefault(reason, Count()).merge(count)


@dataclass(frozen=True)
class DataReport:
    """Rows in, examples and tokens out.

    Attributes:
        rows: read.
        kept: examples made of them.
        truncated: rows that lost tokens to ``max_length`` (kept or not).
        dropped: rows that became no example, by reason.
        tokens: over all examples.
        supervised_tokens: those that carry loss.
        lengths: tokens of an example: ``min``, ``p5`` ... ``p99``, ``max``, ``mean``.
        packing: ``{capacity, sequences, efficiency}`` where sequences are packed; ``efficiency`` is
            the share of their capacity that is filled.
    """

    rows: int
    kept: int
    truncated: Count
    dropped: dict[str, Count]
    tokens: int
    supervised_tokens: int
    lengths: dict[str, float]
    packing: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; ``dropped`` is a list of ``{reason, count, places}``, the most frequent first."""
        by_count = sorted(self.dropped.items(), key=lambda item: -item[1].count)
        return asdict(self) | {"dropped": [{"reason": reason, **asdict(count)} for reason, count in by_count]}

    def losses(self) -> list[str]:
        """What a run tells before it trains on less than it was given: each reason, and the first places."""
        told = [(f"left out, {reason}", count) for reason, count in self.dropped.items()]
        if self.truncated.count:
            told.insert(0, ("cut to data.max_length", self.truncated))
        return [
            f"{count.count} of {self.rows} rows {what}; first\n    " + "\n    ".join(count.places)
            for what, count in told
        ]


def describe_lengths(lengths: NDArray[np.integer], percentiles: Sequence[int] = PERCENTILES) -> dict[str, float]:
    """Least, percentiles, greatest and mean of ``lengths``; empty for none."""
    if not len(lengths):
        return {}
    values = np.percentile(lengths, percentiles, method="inverted_cdf")
    middle = {f"p{p}": int(value) for p, value in zip(percentiles, values, strict=True)}
    return {"min": int(lengths.min()), **middle, "max": int(lengths.max()), "mean": float(lengths.mean())}
