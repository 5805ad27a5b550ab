"""What rewards say, and what becomes of those that say something else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ptsdk.builtin.single import Single
from ptsdk.contracts.reward import Reward
from ptsdk.errors import RunError
from ptsdk_grpo.rewarding import named, scores_of
from ptsdk_grpo.rewards import ExactMatch, Length, Regex


class Fixed(Reward):
    """Gives what it is told."""

    answer: Any = None

    def score(self, completions: Any, rows: Any) -> Any:
        return self.answer


class Raising(Reward):
    """Fails."""

    def score(self, completions: Any, rows: Any) -> Any:
        raise KeyError("answer")


class Peer(Single):
    """Another process, which says something."""

    other: Any

    def collect(self, value: Any) -> list[Any]:
        return [value, self.other]


@pytest.mark.parametrize(
    ("reward", "text", "row", "score"),
    [
        (ExactMatch(column="a"), " 42\n", {"a": 42}, 1.0),
        (ExactMatch(column="a"), "The answer is 42", {"a": "42"}, 0.0),
        (ExactMatch(column="a", ignore_case=True), "YES", {"a": "yes"}, 1.0),
        (ExactMatch(column="a"), "YES", {"a": "yes"}, 0.0),
        (ExactMatch(column="a", pattern=r"#### (\d+)"), "#### 1\nno:\n#### 42", {"a": "42"}, 1.0),
        (ExactMatch(column="a", pattern=r"#### (\d+)"), "#### 42\nno:\n#### 1", {"a": "42"}, 0.0),
        (ExactMatch(column="a", pattern=r"\d+"), "it is 42.", {"a": "42"}, 1.0),
        (ExactMatch(column="a", pattern=r"(x)|\d+"), "it is 42.", {"a": "42"}, 0.0),
        (ExactMatch(column="a", pattern=r"\d+"), "no idea", {"a": ""}, 0.0),
        (Regex(pattern="b.d"), "ab\nd", {}, 1.0),
        (Regex(pattern="^b"), "ab", {}, 0.0),
        (Regex(pattern="b", full=True), "ab", {}, 0.0),
        (Regex(pattern="a|ab", full=True), "ab", {}, 1.0),
        (Length(target=4), "abcd", {}, 1.0),
        (Length(target=4), "abc", {}, 0.75),
        (Length(target=4), "abcdef", {}, 0.5),
        (Length(target=4), "a" * 100, {}, 0.0),
        (Length(target=4), "", {}, 0.0),
    ],
)
def test_scores(reward: Reward, text: str, row: dict[str, Any], score: float) -> None:
    assert reward.score([text, text], [row, row]) == [score, score]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Regex, {"pattern": "("}),
        (ExactMatch, {"column": "a", "pattern": "["}),
        (ExactMatch, {}),
        (Length, {"target": 0}),
    ],
)
def test_impossible_options_are_refused(kind: type[Reward], options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(options)


def ask(*rewards: Reward, strategy: Any = None, texts: tuple[str, ...] = ("ab", "c")) -> list[torch.Tensor]:
    return scores_of(rewards, texts, [{} for _ in texts], strategy or Single())


def test_one_column_a_reward() -> None:
    (found,) = ask(Fixed(answer=[1, 2.5]), Fixed(answer=torch.tensor([True, False])))
    assert found.tolist() == [[1.0, 1.0], [2.5, 0.0]]
    assert found.dtype == torch.float64
    (none,) = ask(Raising(), Raising(), texts=())
    assert none.shape == (0, 2), "a process without completions asks nothing"


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (Fixed(answer=[1.0]), "reward Fixed gave 1 scores for 2 completions"),
        (Fixed(answer=[1.0, float("nan")]), "gave nan where a finite number is needed, for 'c'"),
        (Fixed(answer=[float("-inf"), 1.0]), "gave -inf where a finite number is needed, for 'ab'"),
        (Fixed(answer=["1", "2"]), "gave '1' where a finite number"),
        (Fixed(answer=[None, 1.0]), "gave None where a finite number"),
        (Fixed(answer=None), "reward Fixed failed: TypeError"),
        (Raising(), "reward Raising failed: KeyError: 'answer'"),
        (ExactMatch(column="a"), "reward ExactMatch: a row has no column `a`; it has none"),
    ],
)
def test_anything_else_than_numbers_ends_the_run(reward: Reward, message: str) -> None:
    with pytest.raises(RunError) as caught:
        ask(Length(target=1), reward)
    assert message in str(caught.value)


def test_an_error_of_one_process_ends_all() -> None:
    with pytest.raises(RunError, match="out of tea"):
        ask(Fixed(answer=[1, 2]), strategy=Peer(other="out of tea"))
    other = torch.ones(3, 1, dtype=torch.float64)
    assert [len(part) for part in ask(Fixed(answer=[1, 2]), strategy=Peer(other=other))] == [2, 3]


def test_names_in_metrics() -> None:
    rewards = [Length(target=1), Regex(pattern="a"), Length(target=2)]
    object.__setattr__(rewards[1], "__ptsdk_use__", "./mine.py:Nice")
    assert list(named(rewards)) == ["Length_1", "Nice", "Length_2"]
    object.__setattr__(rewards[1], "__ptsdk_use__", "ptsdk-grpo/regex")
    assert list(named(rewards)) == ["Length_1", "regex", "Length_2"]
