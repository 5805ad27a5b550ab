"""What a reward has to do."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from ptsdk.contracts.reward import Reward
from ptsdk.testing.jobs import example_row
from ptsdk.testing.suite import ComponentSuite

COMPLETIONS = ("", "42", "The answer is 42.", "no", "<think>hm</think> 42", "\N{SNOWMAN} ü", "a" * 400, "42")


class RewardSuite(ComponentSuite):
    """For the kind ``reward``.

    Attributes:
        completions: texts to score.
        rows: the data row of each; by default rows with the columns of every built-in data set.
    """

    kind: ClassVar[str] = "reward"
    completions: ClassVar[Sequence[str]] = COMPLETIONS
    rows: ClassVar[Sequence[dict[str, Any]]] = ()

    def asked(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Completions and their rows, among them the very words of a row."""
        texts = list(self.completions)
        given = self.rows or [{**example_row(i), "answer": text or "42"} for i, text in enumerate(texts)]
        return texts, [copy.deepcopy(dict(given[i % len(given)])) for i in range(len(texts))]

    def test_gives_a_number_for_each_completion(self) -> None:
        """One finite number for each completion, in order, an empty one among them."""
        texts, rows = self.asked()
        reward: Reward = self.make()
        scores = reward.score(texts, rows)
        assert len(scores) == len(texts), f"{len(scores)} scores of {len(texts)} completions"
        for text, score in zip(texts, scores, strict=True):
            finite = isinstance(score, int | float) and math.isfinite(score)
            assert finite, f"the score of {text[:20]!r} is {score!r}"

    def test_judges_each_completion_by_itself(self) -> None:
        """The same score in whatever order and company: completions of a group reach several processes."""
        texts, rows = self.asked()
        reward: Reward = self.make()
        together = list(reward.score(texts, rows))
        backwards = list(reward.score(texts[::-1], rows[::-1]))[::-1]
        alone = [reward.score([text], [row])[0] for text, row in zip(texts, rows, strict=True)]
        assert together == backwards == alone, "a score depends on the other completions or on their order"

    def test_leaves_the_rows_alone(self) -> None:
        """Rows are the run's own: a reward that changes them changes what later epochs see."""
        texts, rows = self.asked()
        before = copy.deepcopy(rows)
        self.make().score(texts, rows)
        assert rows == before, "score() has changed the rows it was given"
