"""Runs that go on in another number of processes than they were started in.

    python -m tests.faults.worlds

A line for each; 1 where one does not read the same rows, or its losses differ by more than rounding.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults.forked import Processes
from tests.faults.kills import Cell, prepare, write_data, write_job

CHANGES = ((2, 1, "packed"), (1, 2, "mixture"), (2, 4, "mixture"))
EXACT = ("step", "epoch", "tokens", "tokens_total", "supervised_tokens", "lr")
ROUNDED = ("loss", "grad_norm")


def check(before: int, after: int, data: str, folder: Path) -> None:
    """A run of ``before`` processes alone, and one that is killed after step 5 and resumed in ``after``.

    Raises:
        AssertionError: they are not the same run.
    """
    cell = Cell("sft", "full", 2, data)
    Processes(write_job(folder, "whole", cell.job(folder / "whole")), before).succeed()
    path = write_job(folder, "moved", cell.job(folder / "moved"))
    killed = Processes(path, before)
    while len(rows(folder / "moved")) < 5:
        assert not killed.over(), killed.log.read_text()
        time.sleep(0.0005)
    killed.kill(killed.pids, 0)
    resumed = Processes(path, after, "--resume")
    resumed.succeed()
    assert f"environment.world_size: {before} then, {after} now" in resumed.log.read_text()
    ours, theirs = rows(folder / "moved"), rows(folder / "whole")
    assert [[row[key] for key in EXACT] for row in ours] == [[row[key] for key in EXACT] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert all(math.isclose(mine[key], other[key], rel_tol=1e-5) for key in ROUNDED), (mine, other)


def rows(run: Path) -> list[dict[str, Any]]:
    """The whole lines of the log."""
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def main() -> int:
    """Check and print."""
    os.environ["OMP_NUM_THREADS"] = "1"
    prepare()
    failed = 0
    for before, after, data in CHANGES:
        with tempfile.TemporaryDirectory() as name:
            write_data(Path(name))
            try:
                check(before, after, data, Path(name))
                print(f"{before} -> {after}: same rows, same losses", flush=True)
            except AssertionError as error:
                failed = 1
                print(f"{before} -> {after}: {error}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
