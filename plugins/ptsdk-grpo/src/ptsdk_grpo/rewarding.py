"""What completions are worth: every reward asked, every answer checked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ptsdk.contracts.component import Component
from ptsdk.contracts.reward import Reward
from ptsdk.errors import RunError

if TYPE_CHECKING:
    from ptsdk.contracts.strategy import Strategy


def scores_of(
    rewards: Sequence[Reward], completions: Sequence[str], rows: Sequence[dict[str, Any]], strategy: Strategy
) -> list[Tensor]:
    """What each reward says of this process's completions, known to all. Called by all processes together.

    Returns:
        float64 [n, R] of each process, by rank: n completions, R rewards, not yet weighted.

    Raises:
        RunError: on every process, where a reward of one of them failed.
    """
    mine: Tensor | str
    try:
        columns = [checked(name, reward, completions, rows) for name, reward in named(rewards).items()]
        mine = torch.tensor(columns, dtype=torch.float64).T
    except RunError as error:
        mine = str(error)
    answers: list[Tensor | str] = strategy.collect(mine)
    if errors := [answer for answer in answers if isinstance(answer, str)]:
        raise RunError(errors[0])
    return [answer for answer in answers if isinstance(answer, Tensor)]


def checked(name: str, reward: Reward, completions: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[float]:
    """One finite number for each completion.

    Raises:
        RunError: the reward raised, or gave anything else.
    """
    if not completions:
        return []
    try:
        given = list(reward.score(completions, rows))
    except RunError as error:
        raise RunError(f"reward {name}: {error}") from error
    except Exception as error:
        raise RunError(f"reward {name} failed: {type(error).__name__}: {error}") from error
    if len(given) != len(completions):
        raise RunError(f"reward {name} gave {len(given)} scores for {len(completions)} completions")
    for value, completion in zip(given, completions, strict=True):
        if not is_finite(value):
            raise RunError(f"reward {name} gave {value!r} where a finite number is needed, for {completion[:200]!r}")
    return [float(value) for value in given]


def is_finite(value: Any) -> bool:
    """Whether it is a number, and neither infinite nor nan."""
    try:
        return not isinstance(value, str) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def named(rewards: Sequence[Component]) -> dict[str, Any]:
    """Rewards by the name they have in metrics: that of the component; several of one name are numbered."""
    names = [(getattr(reward, "__ptsdk_use__", "") or type(reward).__name__) for reward in rewards]
    short = [name.replace(":", "/").rpartition("/")[2] for name in names]
    several, seen = Counter(short), Counter[str]()
    found: dict[str, Any] = {}
    for name, reward in zip(short, rewards, strict=True):
        seen[name] += 1
        found[f"{name}_{seen[name]}" if several[name] > 1 else name] = reward
    return found
