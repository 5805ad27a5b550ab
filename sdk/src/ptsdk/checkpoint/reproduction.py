"""Whether a run can repeat another one to the bit, and why two runs differ.

Stricter than a resume (``checkpoint.lock``): what only regroups the same sums, hardware included, moves
bits, so it counts here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ptsdk.checkpoint.environment import required_dists
from ptsdk.checkpoint.lock import ABSENT, FORMAT, FREE, compared, worded
from ptsdk.errors import Problem, UserError
from ptsdk.redaction import HIDDEN

VOLATILE = frozenset({"tokens_per_second", "step_seconds", "peak_memory_bytes"})
"""Metrics of the machine, not of the training."""
SECTIONS = {
    "job": "job",
    "total_steps": "job",
    "files": "job",
    "dists": "versions",
    "sources": "versions",
    "format": "versions",
    "data": "data",
    "template": "template",
    "tokenizer": "template",
    "model": "model",
    "frozen": "model",
    "environment": "environment",
}
"""The part of a difference's path -> what a person calls it."""


@dataclass(frozen=True)
class Difference:
    """One leaf at which two locks differ; ``absent`` in JSON is null."""

    path: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Parting:
    """The first row of metrics that is not the same in both runs; a run that has ended has no values."""

    step: int
    first: Mapping[str, float] | None
    second: Mapping[str, float] | None


@dataclass(frozen=True)
class RunDiff:
    """Why two runs differ.

    Attributes:
        differences: by section (``job``, ``versions``, ``data``, ``template``, ``model``, ``environment``).
        without_effect: what differs and decides no weight: where output goes, packages that are not used.
        steps: rows of metrics that both have, in common from the first on.
        parting: where the metrics part, None where they are the same throughout, or one run has none.
    """

    differences: Mapping[str, Sequence[Difference]] = field(default_factory=dict)
    without_effect: Sequence[Difference] = ()
    steps: int = 0
    parting: Parting | None = None

    @property
    def same(self) -> bool:
        """Whether nothing that matters differs."""
        return self.parting is None and not any(self.differences.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"same": self.same, **asdict(self)}


def read_lock(path: Path) -> dict[str, Any]:
    """The content of a lock.json.

    Raises:
        UserError: it cannot be read, or is no lock.
    """
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = Problem(f"cannot be read: {error.strerror}", "a run leaves it in output_dir", str(path))
        raise UserError(problem) from error
    except (ValueError, RecursionError) as error:
        raise UserError(Problem(f"not JSON: {error}", "", str(path), getattr(error, "lineno", 1))) from error
    parts = ("job", "dists", "environment", "data", "sources")
    if not isinstance(lock, dict) or not all(isinstance(lock.get(part), dict) for part in parts):
        raise UserError(Problem("not the lock of a run", "a run leaves lock.json in output_dir", str(path)))
    if lock.get("format") != FORMAT:
        found = lock.get("format")
        raise UserError(Problem(f"a lock of format {found!r}, this ptsdk reads {FORMAT}", "", str(path)))
    return lock


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, of training steps and of validations; none where there is no such file.

    Raises:
        UserError: a line is not a row.
    """
    file = run / "metrics.jsonl"
    if not file.is_file():
        return []
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            row = json.loads(line)
            int(row["step"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(Problem(f"not a row of metrics ({error})", "", str(file), number)) from error
        rows.append(row)
    return rows


def locked_job(path: Path, lock: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """The job in a lock and the folder that its paths are relative to.

    Raises:
        UserError: the lock hides a secret of the job, or does not say where the job lay.
    """
    if hidden := [key for key, value in _leaves("", lock["job"]) if isinstance(value, str) and HIDDEN in value]:
        hint = f"give the job file as well: ptsdk run JOB --locked {path}"
        message = f"the lock does not hold the secrets of its job ({', '.join(hidden)})"
        raise UserError(Problem(message, hint, str(path)))
    if not isinstance(lock.get("base"), str):
        raise UserError(Problem("the lock does not say where its job lay", "give the job file as well", str(path)))
    return dict(lock["job"]), Path(lock["base"])


def locked_differences(lock: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Why a run would not be what ``lock`` describes, to the bit: one line a difference that matters."""
    return [worded(*found, ("in the lock", "here")) for found in _compared(lock, new) if not FREE.match(found[0])]


def diff_runs(first: Path, second: Path) -> RunDiff:
    """Compare two run directories.

    Raises:
        UserError: one is no run directory, or a file in it cannot be read.
    """
    old, new = (read_lock(run / "lock.json") for run in (first, second))
    differences: dict[str, list[Difference]] = {section: [] for section in SECTIONS.values()}
    without_effect = [_difference(*found) for found in _unused(old, new)]
    for path, before, now in _compared(old, new):
        section = without_effect if FREE.match(path) else differences[SECTIONS[path.partition(".")[0]]]
        section.append(_difference(path, before, now))
    steps, parting = _parting(_rows(first), _rows(second))
    return RunDiff(differences, without_effect, steps, parting)


def _difference(path: str, first: Any, second: Any) -> Difference:
    return Difference(path, *(None if value is ABSENT else value for value in (first, second)))


def _packages(*locks: Mapping[str, Any]) -> set[str]:
    """Those that a run imports: of its components, and whatever they require."""
    return set(required_dists(name for lock in locks for name in lock.get("used", ())))


def _compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return compared(old, new, packages=_packages(old, new))


def _unused(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What differs of the packages that neither run imports."""
    packages = ({*old["dists"], *new["dists"]}) - _packages(old, new)
    return compared({"dists": old["dists"]}, {"dists": new["dists"]}, packages=packages)


def _rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without what the machine decides."""
    return [{key: value for key, value in row.items() if key not in VOLATILE} for row in read_metrics(run)]


def _parting(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> tuple[int, Parting | None]:
    """How many rows agree, and the first that does not; nothing of a run without rows."""
    if not first or not second:
        return 0, None
    for number, (a, b) in enumerate(zip_longest(first, second)):
        if a != b:
            keys = sorted(key for key in {**(a or {}), **(b or {})} if (a or {}).get(key) != (b or {}).get(key))
            step = min(row["step"] for row in (a, b) if row)
            return number, Parting(step, _only(a, keys), _only(b, keys))
    return len(first), None


def _only(row: Mapping[str, Any] | None, keys: Sequence[str]) -> dict[str, Any] | None:
    return None if row is None else {key: row[key] for key in keys if key in row}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _leaves(f"{path}.{i}", item)
    else:
        yield path, value
