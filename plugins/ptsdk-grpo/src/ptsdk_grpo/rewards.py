"""Rewards that need nothing but the text and the row its prompt came from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from ptsdk.contracts.reward import Reward
from ptsdk.errors import RunError

Rows = Sequence[dict[str, Any]]


class ExactMatch(Reward):
    """1 where the completion is the text of a column, 0 elsewhere; white space around both is ignored."""

    column: str = Field(description="column of the row that holds what is wanted", examples=["answer"])
    ignore_case: bool = Field(False, description="whether A is a")
    pattern: str | None = Field(
        None,
        description="regular expression of what is compared: the first group of its last match (the whole match "
        "without groups); where it is not found the score is 0. The whole completion by default",
    )

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        return pattern if pattern is None else compiled(pattern)

    def score(self, completions: Sequence[str], rows: Rows) -> list[float]:
        """See the contract.

        Raises:
            RunError: a row has no such column.
        """
        return [float(self._same(text, wanted(row, self.column))) for text, row in zip(completions, rows, strict=True)]

    def _same(self, completion: str, answer: str) -> bool:
        given = completion if self.pattern is None else last_match(self.pattern, completion)
        if given is None:
            return False
        a, b = given.strip(), answer.strip()
        return a.casefold() == b.casefold() if self.ignore_case else a == b


class Length(Reward):
    """``1 - |characters - target| / target``, and never less than 0."""

    target: int = Field(gt=0, description="characters of the completion that score 1", examples=[100])

    def score(self, completions: Sequence[str], rows: Rows) -> list[float]:
        """See the contract."""
        return [max(0.0, 1 - abs(len(text) - self.target) / self.target) for text in completions]


class Regex(Reward):
    """1 where a pattern is found in the completion, 0 elsewhere."""

    pattern: str = Field(
        description="regular expression; ^ and $ are the ends of the completion, . any character", examples=[r"\d+"]
    )
    full: bool = Field(False, description="the whole completion must match")

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str) -> str:
        return compiled(pattern)

    def score(self, completions: Sequence[str], rows: Rows) -> list[float]:
        """See the contract."""
        pattern = re.compile(self.pattern, re.DOTALL)
        find = pattern.fullmatch if self.full else pattern.search
        return [float(find(text) is not None) for text in completions]


def compiled(pattern: str) -> str:
    """``pattern``, if it is a regular expression.

    Raises:
        ValueError: it is none.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


def last_match(pattern: str, text: str) -> str | None:
    """What the first group of the last match holds, or the match itself; None where there is none."""
    found = list(re.finditer(pattern, text, re.DOTALL))
    if not found:
        return None
    value: str | None = found[-1][1 if found[-1].re.groups else 0]
    return value


def wanted(row: dict[str, Any], column: str) -> str:
    """The text of a column.

    Raises:
        RunError: there is no such column.
    """
    if column not in row:
        raise RunError(f"a row has no column `{column}`; it has {', '.join(map(str, row)) or 'none'}")
    return str(row[column])
