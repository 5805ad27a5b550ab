"""What became of a run, from the files that it left."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptsdk.checkpoint.reproduction import VOLATILE, read_lock, read_metrics
from ptsdk.checkpoint.run_dir import RunDir, step_of

COUNTS = VOLATILE | {"step", "epoch", "tokens", "supervised_tokens", "tokens_total", "lr", "compiled_graphs"}
"""What a row of metrics has beside the numbers that training is about."""
PARTS = ("model", "method", "loss", "adapter", "quantizer", "optimizer", "schedule", "strategy")
"""The sections of a job that a component stands in."""


@dataclass(frozen=True)
class Curve:
    """One number of a run, from its first row to its last."""

    first: float
    last: float
    least: float
    least_step: int
    most: float
    most_step: int
    values: tuple[float, ...]

    @classmethod
    def of(cls, steps: Sequence[int], values: Sequence[float]) -> Curve:
        """Of the steps at which it was measured, and what it was; at least one."""
        pairs = sorted(zip(values, steps, strict=True), key=lambda pair: pair[0])
        (least, at), (most, there) = pairs[0], max(pairs, key=lambda pair: (pair[0], -pair[1]))
        return cls(values[0], values[-1], least, at, most, there, tuple(values))


@dataclass(frozen=True)
class Summary:
    """What became of a run.

    Attributes:
        run: its directory.
        finished: whether it left a ``final/`` after all its steps.
        step, total_steps, epoch, tokens: how far it came.
        parts: the components of the job, by section, as the job names them.
        lr, batch_size, seed: of the job.
        curves: its numbers, ``loss`` first.
        seconds: spent in steps.
        tokens_per_second: of the median step.
        peak_memory_bytes: of the process that logs.
        checkpoints: the steps of those that are there, newest first.
        environment: the machine, as lock.json tells it.
    """

    run: Path
    finished: bool
    step: int
    total_steps: int
    epoch: float
    tokens: int
    parts: Mapping[str, str]
    lr: float | None
    batch_size: int | None
    seed: int | None
    curves: Mapping[str, Curve]
    seconds: float
    tokens_per_second: float | None
    peak_memory_bytes: int | None
    checkpoints: tuple[int, ...]
    environment: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; of curves all but their values."""
        curves = {name: {key: value for key, value in asdict(curve).items() if key != "values"}
                  for name, curve in self.curves.items()}  # fmt: skip
        return {**asdict(self), "run": str(self.run), "checkpoints": list(self.checkpoints), "curves": curves}


def summarise(run: Path) -> Summary:
    """Read a run directory.

    Raises:
        UserError: it is none, or a file in it cannot be read.
    """
    lock, rows, folder = read_lock(run / "lock.json"), read_metrics(run), RunDir(run)
    job = lock["job"]
    steps = [row for row in rows if "tokens_total" in row]
    last = steps[-1] if steps else {}
    total = int(lock.get("total_steps") or 0)
    rates = [row["tokens_per_second"] for row in steps if "tokens_per_second" in row]
    train = job.get("train") or {}
    return Summary(
        run=run,
        finished=folder.final.is_dir() and (not steps or last["step"] >= total),
        step=int(last.get("step", 0)),
        total_steps=total,
        epoch=float(last.get("epoch", 0.0)),
        tokens=int(last.get("tokens_total", 0)),
        parts=dict(_parts(job)),
        lr=(job.get("optimizer") or {}).get("lr"),
        batch_size=train.get("batch_size"),
        seed=lock.get("seed"),
        curves=dict(_curves(rows)),
        seconds=sum(row.get("step_seconds", 0.0) for row in steps),
        tokens_per_second=statistics.median(rates) if rates else None,
        peak_memory_bytes=max((row["peak_memory_bytes"] for row in steps if "peak_memory_bytes" in row), default=None),
        checkpoints=tuple(step_of(path) for path in folder.checkpoints()),
        environment=lock["environment"],
    )


def _parts(job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What each section uses; a model also where it is from."""
    for section in PARTS:
        if isinstance(part := job.get(section), Mapping):
            name = str(part.get("use", "")).removeprefix("ptsdk/")
            yield section, str(part["path"]) if part.get("path") else name


def _curves(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Curve]]:
    names = dict.fromkeys(["loss", "val/loss", *(name for row in rows for name in row if name not in COUNTS)])
    for name in names:
        found = [(row["step"], row[name]) for row in rows if _is_number(row.get(name))]
        if found:
            steps, values = zip(*found, strict=True)
            yield name, Curve.of(steps, values)


def _is_number(value: object) -> bool:
    """Whether it can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
