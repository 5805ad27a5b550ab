"""Runs that go on in another number of processes than they were started in.

    python -m tests.faults.worlds [--only TEXT] [--record]

Every method x update x data is killed after its fifth step and resumed in one process where there were two, in
two where there was one, in four where there were two. It has to read the same rows in the same order as the run
that was left alone (grpo: to write the same completions, in the middle of a rollout too), with losses equal to
rounding. ``--record`` writes ``tests/faults/worlds.json``, a part of ``docs/reliability.md``.

LoRA is without dropout here, whose masks are drawn by process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.forked import Processes
from tests.faults.kills import ALL, VOLATILE, Cell, prepare, recorded, write_data, write_job

RESULTS = Path(__file__).with_name("worlds.json")
CHANGES = ((2, 1), (1, 2), (2, 4))
EXACT = {
    "step", "epoch", "tokens", "tokens_total", "supervised_tokens", "lr", "completions/mean_length",
    "completions/clipped_ratio", "reward/zero_std",
}  # fmt: skip
RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""Of every other number; the losses of dpo and grpo come near zero."""


@dataclass(frozen=True)
class Move:
    """A cell, and in how many processes it is before and after."""

    cell: Cell
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.cell.method}-{self.cell.update}-{self.cell.data}-{self.before}-{self.after}"

    def job(self, out: Path) -> dict[str, Any]:
        """The job of the cell without dropout."""
        job = self.cell.job(out)
        if "adapter" in job:
            job["adapter"] = {**job["adapter"], "dropout": 0.0}
        return job


MOVES = [Move(cell, *change) for cell in ALL if cell.processes == 2 for change in CHANGES]


def check(move: Move, folder: Path) -> None:
    """A run of ``before`` processes alone, and one that is killed after step 5 and resumed in ``after``.

    Raises:
        AssertionError: they are not the same run.
    """
    Processes(write_job(folder, "whole", move.job(folder / "whole")), move.before).succeed()
    path = write_job(folder, "moved", move.job(folder / "moved"))
    killed = Processes(path, move.before)
    while len(rows(folder / "moved")) < 5:
        assert not killed.over(), killed.log.read_text()
        time.sleep(0.0005)
    killed.kill(killed.pids, 0)
    resumed = Processes(path, move.after, "--resume")
    resumed.succeed()
    said = resumed.log.read_text()
    assert f"environment.world_size: {move.before} then, {move.after} now" in said, said
    assert_close(rows(folder / "whole"), rows(folder / "moved"))


def assert_close(whole: list[dict[str, Any]], moved: list[dict[str, Any]]) -> None:
    """Counts, rates and what was written the same; sums that are made in another order, to rounding."""
    assert len(whole) == len(moved)
    for theirs, ours in zip(whole, moved, strict=True):
        assert theirs.keys() == ours.keys()
        for key in theirs.keys() - VOLATILE:
            same = theirs[key] == ours[key] if key in EXACT else _close(theirs[key], ours[key])
            assert same, f"step {theirs['step']}: {key} {theirs[key]}, moved {ours[key]}"


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def rows(run: Path) -> list[dict[str, Any]]:
    """The whole lines of the log."""
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def outcome(move: Move) -> str:
    """What became of it."""
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name))
        try:
            check(move, Path(name))
        except AssertionError as error:
            return f"failed: {error}"[:2000]
    return "same rows, same losses"


def main() -> int:
    """Check, print and perhaps record; 1 where one is another run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="moves whose name contains one of these words, divided by commas")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name}")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    prepare()
    results = {}
    for move in MOVES:
        if any(word in str(move) for word in args.only.split(",")):
            results[str(move)] = outcome(move)
            print(f"{move}: {results[str(move)]}", flush=True)
    if args.record:
        RESULTS.write_text(json.dumps({**recorded("worlds"), "moves": results}, indent=1) + "\n")
    return int(any(said.startswith("failed") for said in results.values()))


if __name__ == "__main__":
    sys.exit(main())
