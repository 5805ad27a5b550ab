"""What a row of the bench is, and what its measurements come to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

OURS = "ptsdk"
Metrics = dict[str, float]
Output = dict[str, Any]
"""What a contestant printed: numbers, or lists of samples."""


@dataclass(frozen=True)
class Contestant:
    """A script of ``contestants/``, and the virtual environment it runs in; None is that of the bench."""

    script: str
    venv: str | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hold:
    """What the row has to reach: a number made of all contestants' metrics, and its bound; ``why`` it may not."""

    text: str
    value: Callable[[Mapping[str, Metrics]], float]
    bound: float
    at_least: bool = True
    why: str = ""

    def judged(self, measured: Mapping[str, Metrics]) -> dict[str, Any]:
        """``{hold, value, reached}``; without a value where a contestant it needs is absent, with ``why`` where it is
        not reached and that is known."""
        try:
            value = self.value(measured)
        except (KeyError, ValueError):
            return {"hold": self.text, "value": None, "reached": False}
        reached = value >= self.bound if self.at_least else value <= self.bound
        why = {"why": self.why} if self.why and not reached else {}
        return {"hold": self.text, "value": value, "reached": reached, **why}


def mine(name: str) -> Callable[[Mapping[str, Metrics]], float]:
    """ptsdk's own value of a metric."""
    return lambda measured: measured[OURS][name]


def over_best(name: str, best: Callable[..., float] = max) -> Callable[[Mapping[str, Metrics]], float]:
    """ptsdk's value over that of the peer which has the best."""
    return lambda measured: measured[OURS][name] / best(m[name] for c, m in measured.items() if c != OURS)


def faster(factor: float, name: str = "tokens_per_second") -> Hold:
    return Hold(f"{factor:g}x the fastest peer or more", over_best(name), factor)


def leaner(factor: float, why: str = "") -> Hold:
    text = f"{factor:g}x the memory of the leanest peer or less"
    return Hold(text, over_best("peak_bytes", min), factor, at_least=False, why=why)


OPERATIONS = Contestant("profile")
"""Of a job that trains."""
OUTSIDE = (
    "three tenths of the time are outside of matrix products (the profile below); these, each alone on the same "
    "layouts, stay below the best `linear` (the last column), and in a step they share the caches with all else"
)


def roofline(share: float) -> Hold:
    return Hold(f"{share:.0%} of the roofline or more", mine("roofline"), share, why=OUTSIDE)


Measure = Callable[[Path, Sequence[Output], float], Metrics]
"""The metrics of one contestant: from the row's folder, the outputs of all rounds, and the best rate of a
``linear`` in floating-point operations a second."""


@dataclass(frozen=True)
class Row:
    """One line of work, done by ptsdk and its peers in turn.

    Attributes:
        name: as in ``make bench ROWS=...``.
        work: what is done, in a sentence.
        contestants: in the order of a round; ``OURS`` is one of them.
        holds: what is to be reached.
        prepare: fills the row's folder.
        measure: see ``Measure``.
        absent: peers that cannot do it, and why.
        checks: run once, by us alone; what they print becomes metrics of ours.
        profile: shows where our time goes, where a hold is missed.
        device: where it is measured; a row for a GPU is left out where there is none.
    """

    name: str
    work: str
    contestants: Mapping[str, Contestant]
    holds: tuple[Hold, ...]
    prepare: Callable[[Path], None]
    measure: Measure
    absent: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Contestant, ...] = ()
    profile: Contestant | None = None
    device: str = "cpu"

    def result(
        self, folder: Path, outputs: Mapping[str, Sequence[Output]], checked: Metrics, peak_rate: float
    ) -> dict[str, Any]:
        """What is stored of the row: contestants with their metrics, ratios of ours to theirs, holds."""
        measured = {name: self.measure(folder, runs, peak_rate) for name, runs in outputs.items()}
        measured[OURS] |= checked
        shown: dict[str, Any] = {n: {**m, "versions": outputs[n][0]["versions"]} for n, m in measured.items()}
        return {
            "work": self.work,
            "linear_flops_per_second": peak_rate,
            "contestants": shown | {name: {"absent": why} for name, why in self.absent.items()},
            "ratios": {name: ratios(measured[OURS], m) for name, m in measured.items() if name != OURS},
            "holds": [hold.judged(measured) for hold in self.holds],
        }


def ratios(ours: Metrics, theirs: Metrics) -> Metrics:
    """Ours over theirs, of what both have and what is not a loss."""
    return {k: ours[k] / theirs[k] for k in ours if k in theirs and "loss" not in k and k != "roofline" and theirs[k]}


WARM_UP = 1
"""Steps at the start that do not count."""


def training_metrics(folder: Path, runs: Sequence[Output], peak_rate: float) -> Metrics:
    """Tokens a second, share of the roofline, memory and losses: the time of a step is its median over rounds."""
    row = json.loads((folder / "row.json").read_text(encoding="utf-8"))
    if any(len(run["seconds"]) != row["steps"] for run in runs):
        raise ValueError(f"{folder.name}: a contestant took {len(runs[0]['seconds'])} steps of {row['steps']}")
    seconds = sum(median(run["seconds"][i] for run in runs) for i in range(WARM_UP, row["steps"]))
    return {
        "tokens_per_second": sum(row["tokens"][WARM_UP:]) / seconds,
        "peak_bytes": median(run["peak_bytes"] for run in runs),
        "roofline": sum(row["flops"][WARM_UP:]) / seconds / peak_rate,
        "first_loss": runs[0]["losses"][0],
        "last_loss": runs[0]["losses"][-1],
    }


def medians(folder: Path, runs: Sequence[Output], peak_rate: float) -> Metrics:
    """The median of every number that was printed."""
    return {name: median(run[name] for run in runs) for name in runs[0] if name != "versions"}
