"""The cheapest techniques under which a job fits into a given memory."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ptsdk.errors import Problem, UserError
from ptsdk.plan.estimate import Plan, Planner
from ptsdk.plan.ladder import Technique, techniques_for
from ptsdk.plan.rehearsal import Held, Trace

SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B)?\s*", re.IGNORECASE)

WEIGHTS = ("dtype", "update")
"""Axes that decide what weights take."""
CORE = ("step", "state", *WEIGHTS)
"""Axes that decide what weights, gradients and optimizer take, whatever is read."""

Choice = tuple[Technique, ...]


@dataclass(frozen=True)
class Fit:
    """What was found.

    Attributes:
        limit: bytes a process may hold.
        choice: the cheapest techniques that fit together, else those that need least.
        plan: of the job with them.
    """

    limit: int
    choice: Choice
    plan: Plan

    @property
    def ok(self) -> bool:
        """Whether it fits."""
        return self.plan.total <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        names = [technique.name for technique in self.choice]
        return {
            "limit": self.limit,
            "ok": self.ok,
            "techniques": names,
            "overrides": list(overrides_of(self.choice)),
            "bytes": self.plan.bytes(),
        }


def parse_size(text: str) -> int:
    """Bytes of ``24GB`` (powers of 1000), ``24GiB`` (of 1024) or a plain number.

    Raises:
        UserError: it is none of these.
    """
    match = SIZE.fullmatch(text)
    if not match:
        raise UserError(
            Problem(f"{text!r} is not a size", "write 24GB, 22.5GiB or, in bytes, 24000000000", path="--fit")
        )
    base, power = (1024 if match[3] else 1000), ("KMGT".index(match[2].upper()) + 1 if match[2] else 0)
    return int(float(match[1]) * base**power)


def fit(planner: Planner, limit: int) -> Fit:
    """The cheapest set of techniques under which no process needs more than ``limit`` bytes, else the one
    that needs least of all that were planned."""
    search = Search(planner, limit)
    return search.cheapest() or search.least()


class Search:
    """Goes through sets of techniques, and plans as few of them as it can.

    A set is left out where what it holds whatever is read is too much already (exact, and soon told),
    where a plan that differs from it in the optimizer alone says so (exact too), or where the leanest sets
    of the same ``CORE`` were planned and are too large: recomputing more, and reading less at a time, is
    taken to need no more.

    Args:
        planner: of the job that is to be changed.
        limit: bytes a process may hold.
    """

    def __init__(self, planner: Planner, limit: int) -> None:
        self.planner, self.limit = planner, limit
        self.sets = choices(techniques_for(planner.job, planner.registry, planner.processes, planner.device))
        self._traces: dict[tuple[int, Choice], list[Trace]] = {}
        self._sizes: dict[Choice, int] = {}

    def cheapest(self) -> Fit | None:
        """The first that fits, from the cheapest on."""
        judged: dict[Choice, bool] = {}
        for choice in self.sets:
            core = among(choice, CORE)
            if not judged.get(core, True) or not self._may_fit(choice):
                continue
            found = self.tried(choice)
            if found and found.ok:
                return found
            if found and core not in judged:
                judged[core] = any(self._fits(leanest) for leanest in self._leanest(core))
        return None

    def least(self) -> Fit:
        """The one that needs least of those that recompute the most; for each kind of weights, with the
        optimizer that holds least."""
        best = Fit(self.limit, (), self.planner.plan())
        for core in self._lightest():
            if self._weights(core) >= best.plan.total:
                break
            for leanest in self._leanest(core):
                if self.at_least(leanest) < best.plan.total:
                    best = min(best, self.tried(leanest) or best, key=lambda found: found.plan.total)
        return best

    def tried(self, choice: Choice) -> Fit | None:
        """The job with these techniques; nothing where it would be refused."""
        try:
            plan = self.planner.plan(*overrides_of(choice))
        except UserError:
            return None
        self._traces.setdefault(self._activity(choice), []).append(plan.trace)
        return Fit(self.limit, choice, plan)

    def at_least(self, choice: Choice) -> float:
        """Bytes that the job with these techniques cannot do without; infinite where it would be refused."""
        held = self._held(among(choice, CORE))
        if held is None or not self._read_at_once(choice):
            return math.inf
        alike = self._traces.get(self._activity(choice), [])
        return max([held.held, *(trace.before_backward - trace.optimizer + held.optimizer for trace in alike)])

    def _may_fit(self, choice: Choice) -> bool:
        """``at_least``, beginning with weights: one answer for all sets of these."""
        return self._weights(choice) <= self.limit and self.at_least(choice) <= self.limit

    def _weights(self, choice: Choice) -> float:
        """Their bytes; infinite where the job would be refused."""
        held = self._held(among(choice, WEIGHTS))
        return held.weights if held else math.inf

    def _fits(self, choice: Choice) -> bool:
        found = self.tried(choice) if self._may_fit(choice) else None
        return found is not None and found.ok

    def _held(self, choice: Choice) -> Held | None:
        try:
            return self.planner.held(*overrides_of(choice))
        except UserError:
            return None

    def _activity(self, choice: Choice) -> tuple[int, Choice]:
        """What decides what is alive before the first gradient, but for the optimizer's state."""
        return self._read_at_once(choice), among(choice, ("recompute", *WEIGHTS))

    def _read_at_once(self, choice: Choice) -> int:
        """The most tokens of a micro-batch; 0 where the job would be refused."""
        reading = among(choice, ("step", "micro-batch"))
        if reading not in self._sizes:
            try:
                changed = self.planner.changed(*overrides_of(reading))
                size, longest = changed.train.micro_batch_size, changed.data.max_length
                self._sizes[reading] = changed.train.micro_batch_tokens or (size or 0) * longest
            except UserError:
                self._sizes[reading] = 0
        return self._sizes[reading]

    def _leanest(self, core: Choice) -> list[Choice]:
        """The sets of this core that recompute the most: with whole micro-batches, and with the smallest,
        which in turn need all gradients at once."""
        same = [choice for choice in self.sets if among(choice, CORE) == core and self._read_at_once(choice)]
        most = max((among(choice, ("recompute",)) for choice in same), key=cost)
        same = sorted((choice for choice in same if among(choice, ("recompute",)) == most), key=self._read_at_once)
        return same if len(same) == 1 else [same[-1], same[0]]

    def _lightest(self) -> Iterator[Choice]:
        """For each kind of weights, the lightest first: the core that holds least with all gradients, and
        the one that does with the optimizer in the backward."""
        for kind in sorted(self._within(WEIGHTS), key=self._weights):
            same = [choice for choice in self._within(CORE) if among(choice, WEIGHTS) == kind]
            for step in self._within(("step",)):
                stepping = [choice for choice in same if among(choice, ("step",)) == step]
                yield min(stepping, key=self.at_least)

    def _within(self, axes: Collection[str]) -> list[Choice]:
        """The sets that change nothing else."""
        return [choice for choice in self.sets if among(choice, axes) == choice]


def among(choice: Choice, axes: Collection[str]) -> Choice:
    """The techniques of a set that are of these axes."""
    return tuple(technique for technique in choice if technique.axis in axes)


def overrides_of(choice: Choice) -> tuple[str, ...]:
    """What turns the job into one with these techniques."""
    return tuple(override for technique in choice for override in technique.overrides)


def cost(choice: Choice) -> tuple[int, int]:
    """What a set costs; of two that cost the same, fewer techniques are less."""
    return sum(technique.cost for technique in choice), len(choice)


def choices(techniques: Iterable[Technique]) -> list[Choice]:
    """Every set of techniques, at most one an axis, the cheapest first. Nothing that has to be installed or takes
    another machine, and no other number of processes."""
    axes: dict[str, list[Choice]] = {}
    for technique in techniques:
        if not technique.install and not technique.elsewhere and technique.axis != "processes":
            axes.setdefault(technique.axis, [()]).append((technique,))
    sets = (tuple(itertools.chain(*parts)) for parts in itertools.product(*axes.values()))
    return sorted(sets, key=cost)
