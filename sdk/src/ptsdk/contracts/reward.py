"""Rewards: scores of completions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from ptsdk.contracts.component import Component


class Reward(Component):
    """One entry of a policy method's ``rewards:``. A plain class in a local file with this one
    method is accepted too."""

    kind: ClassVar[str] = "reward"

    weight: float = Field(1.0, description="what the score is multiplied by before rewards are summed")

    @abstractmethod
    def score(self, completions: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[float]:
        """A score for each completion; ``rows`` are the data rows their prompts came from."""
