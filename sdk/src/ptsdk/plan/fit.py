"""The cheapest techniques under which a job fits into a given memory."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ptsdk.errors import Problem, UserError
from ptsdk.plan.estimate import Plan, Planner
from ptsdk.plan.ladder import Technique, techniques_for

SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B)?\s*", re.IGNORECASE)

STATIC = ("state", "dtype", "update")
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
        overrides = [override for technique in self.choice for override in technique.overrides]
        names = [technique.name for technique in self.choice]
        return {
            "limit": self.limit,
            "ok": self.ok,
            "techniques": names,
            "overrides": overrides,
            "bytes": self.plan.bytes(),
        }


def parse_size(text: str) -> int:
    """Bytes of ``24GB`` (powers of 1000), ``24GiB`` (of 1024) or a plain number.

    Raises:
        UserError: it is none of these.
    """
    match = SIZE.fullmatch(text)
    if not match:
        raise UserError(Problem(f"{text!r} is not a size", "write 24GB, 22.5GiB or a number of bytes", path="--fit"))
    base, power = (1024 if match[3] else 1000), ("KMGT".index(match[2].upper()) + 1 if match[2] else 0)
    return int(float(match[1]) * base**power)


def fit(planner: Planner, limit: int) -> Fit:
    """The cheapest set of techniques under which no process needs more than ``limit`` bytes, or the one
    that needs least of all that were tried.

    Sets that agree in what is held between steps are left out together where even the smallest of them is
    too large.
    """
    techniques = list(techniques_for(planner.job, planner.registry, planner.processes))
    tried: list[Fit] = []
    hopeless: set[Choice] = set()
    for choice in choices(techniques):
        static = _static(choice)
        if static in hopeless:
            continue
        found = _tried(planner, limit, choice)
        if found and found[0].ok:
            return found[0]
        tried += found
        if choice == static and not (found and _may_fit(planner, found[0], techniques)):
            hopeless.add(static)
    least = min(tried, key=lambda found: found.plan.total)
    floor = _floor(planner, limit, _static(least.choice), techniques)
    return min([least, *floor], key=lambda found: found.plan.total)


def _static(choice: Choice) -> Choice:
    return tuple(technique for technique in choice if technique.axis in STATIC)


def _may_fit(planner: Planner, found: Fit, techniques: Sequence[Technique]) -> bool:
    """Whether the leanest form of a set fits; what is held between steps alone may say no."""
    if found.plan.trace.weights + found.plan.trace.optimizer > found.limit:
        return False
    return any(leaner.ok for leaner in _floor(planner, found.limit, found.choice, techniques))


def _floor(planner: Planner, limit: int, static: Choice, techniques: Sequence[Technique]) -> list[Fit]:
    return [found for rest in _leanest(techniques) for found in _tried(planner, limit, static + rest)]


def _leanest(techniques: Sequence[Technique]) -> Iterator[Choice]:
    """The sets without which nothing needs less: the strongest of each axis that is not static, but for
    micro-batches and the optimizer in the backward, which exclude each other."""
    strongest = {t.axis: t for t in techniques if t.axis not in STATIC and not t.install}
    recompute = (strongest["recompute"],) if "recompute" in strongest else ()
    yield recompute
    yield from ((*recompute, strongest[axis]) for axis in ("step", "micro-batch") if axis in strongest)


def _tried(planner: Planner, limit: int, choice: Choice) -> list[Fit]:
    """The job with these techniques; nothing where it would be refused."""
    overrides = tuple(override for technique in choice for override in technique.overrides)
    try:
        return [Fit(limit, choice, planner.plan(*overrides))]
    except UserError:
        return []


def choices(techniques: Sequence[Technique]) -> Iterator[Choice]:
    """Every set of techniques, at most one an axis, the cheapest first. Nothing that has to be installed,
    and no other number of processes."""
    axes: dict[str, list[Choice]] = {}
    for technique in techniques:
        if not technique.install and technique.axis != "processes":
            axes.setdefault(technique.axis, [()]).append((technique,))
    sets = (tuple(itertools.chain(*parts)) for parts in itertools.product(*axes.values()))
    return iter(sorted(sets, key=lambda choice: (sum(technique.cost for technique in choice), len(choice))))
