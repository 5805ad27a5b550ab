"""Runs that are killed at random moments and resumed, beside the same runs left alone.

    python -m tests.faults.kills [--only TEXT] [--kills N] [--seed N] [--record]

For every method x update x number of processes x data, a run dies by SIGKILL again and again: at any
moment from its start to its end, and in turn while it writes a checkpoint. Resumed each time, it
has to end with the bits of the run that was left alone: weights, optimizer, random states, cursor,
and every row of its log. ``--record`` writes ``tests/faults/kills.json``, from which
``docs/reliability.md`` is made.

A run is `ptsdk run` in a process forked from this one, which has imported everything and computed
nothing: so a death costs a fraction of a second. ``test_sigkill.py`` kills processes started anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from tests.faults.forked import Processes

HERE = Path(__file__).parent
RESULTS = HERE / "kills.json"
VOLATILE = {"tokens_per_second", "step_seconds", "peak_memory_bytes"}
MOMENTS = ("starting", "training", "saving", "exporting")
RESUMED = "from a checkpoint"
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
UPDATES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"adapter": {"use": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}},
}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft"},
    "dpo": {"method": "dpo"},
    "kd": {"method": {"use": "kd", "teacher": {"use": "tiny", "config": {**SHAPE, "num_hidden_layers": 1}}}},
    "grpo": {
        "method": {
            "use": "grpo", "group_size": 2, "max_new_tokens": 6, "epochs": 3,  # saved inside rollouts and between them
            "rewards": [{"use": "length", "target": 4}, {"use": "regex", "pattern": "[aeiou]"}],
        },
        "loss": {"use": "grpo", "kl": 0.1},
    },
}  # fmt: skip
FORMATS = {"dpo": ("preference",) * 3, "grpo": ("prompts",) * 3}
"""Of the three data sets; ``TOKENS`` for methods of documents."""
TOKENS = ("instruct", "text", "instruct")


@dataclass(frozen=True)
class Cell:
    """One combination."""

    method: str
    update: str
    processes: int
    data: str

    def __str__(self) -> str:
        return f"{self.method}-{self.update}-{self.processes}-{self.data}"

    def job(self, out: Path, **train: Any) -> dict[str, Any]:
        """A checkpoint every second step of twelve; the packs and the mixture go on into a second epoch. Of the
        mixture it is written while training goes on."""
        formats = FORMATS.get(self.method, TOKENS)
        sets = [{"use": use, "path": f"{use}-{i}.jsonl"} for i, use in enumerate(formats)]
        streamed = self.data == "streamed"
        if streamed or self.data == "mixture":
            sets = [{**one, "weight": weight} for one, weight in zip(sets, (0.5, 0.3, 0.2), strict=True)]
        packing = self.data == "packed" or (streamed and self.method not in FORMATS)
        return {
            "api": 1,
            "model": {"use": "tiny", "config": SHAPE},
            "tokenizer": "bytes",
            **METHODS[self.method],
            **UPDATES[self.update],
            "data": {"train": sets, "max_length": 96, "packing": packing, "streaming": streamed},
            "optimizer": {"use": "adamw", "lr": 1e-3},
            "schedule": {"use": "cosine", "warmup": 0.1},
            "strategy": "single" if self.processes == 1 else "fsdp2",
            "loggers": ["jsonl"],
            "train": {
                "steps": 12,
                "batch_size": 6,
                "micro_batch_size": 2,
                "save_every": 2,
                "seed": 1,
                "async_save": self.data == "mixture",
                **train,
            },
            "output_dir": str(out),
        }


ALL = [
    Cell(*values)
    for values in itertools.product(METHODS, UPDATES, (1, 2), ("packed", "mixture", "streamed"))
    if values[3] != "packed" or values[0] not in FORMATS  # pairs and prompts are not packed
]


def write_data(folder: Path) -> None:
    """Rows of uneven length for each format, in three files each."""
    words = "one row of data and what comes after it in a run that dies".split()  # noqa: SIM905

    def some(start: int, count: int) -> str:
        return " ".join(words[(start * 5 + j) % len(words)] for j in range(count))

    for number, count in enumerate((17, 9, 13)):
        rows = [
            {
                "prompt": some(i, 1 + i % 4) + "? ",
                "completion": some(i + 1, 1 + i % 6),
                "text": some(i + number, 2 + i % 7),
                "chosen": some(i + 2, 1 + i % 3),
                "rejected": some(i + 3, 1 + i % 5),
            }
            for i in range(count)
        ]
        columns = {
            "instruct": ("prompt", "completion"),
            "text": ("text",),
            "preference": ("prompt", "chosen", "rejected"),
            "prompts": ("prompt", "text"),
        }
        for name, kept in columns.items():
            lines = [json.dumps({key: row[key] for key in kept}) + "\n" for row in rows]
            (folder / f"{name}-{number}.jsonl").write_text("".join(lines))


def run_whole(cell: Cell, folder: Path) -> float:
    """The run that nobody kills; how many seconds it takes."""
    started = time.perf_counter()
    Processes(write_job(folder, "whole", cell.job(folder / "whole")), cell.processes).succeed()
    return time.perf_counter() - started


def write_job(folder: Path, name: str, job: dict[str, Any]) -> Path:
    """The job file of a run in a folder of that name."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def check(cell: Cell, folder: Path, kills: int, chance: random.Random) -> Counter[str]:
    """Kill runs of ``cell`` until ``kills`` have died, half of them with a checkpoint to go on from, and each
    resumed until it has come to its end; when they died.

    Raises:
        AssertionError: a resumed run failed, or is not the run that nobody killed.
    """
    seconds, counts = run_whole(cell, folder), Counter[str]()
    for number in itertools.count():
        out = folder / f"killed-{number}"
        path = write_job(folder, out.name, cell.job(out))
        while (moment := _until_death(cell, path, out, seconds, chance, not _enough(counts, kills))) is not None:
            counts[moment] += 1
            counts[RESUMED] += any(out.glob("checkpoints/step-*"))
        assert_same(folder / "whole", out)
        if _enough(counts, kills):
            return counts


def _enough(counts: Counter[str], kills: int) -> bool:
    return sum(counts[moment] for moment in MOMENTS) >= kills and counts[RESUMED] >= kills / 2


def _until_death(cell: Cell, path: Path, out: Path, seconds: float, chance: random.Random, kill: bool) -> str | None:
    """Start or resume; when it was killed, None where it came to its end."""
    logged, left = _logged(out), _half_written(out)
    processes = Processes(path, cell.processes, "--resume")
    if not kill or not _wait(processes, out, left, seconds, chance):
        processes.succeed()
        return None
    pids = processes.pids[:]
    chance.shuffle(pids)
    processes.kill(pids, chance.random() * 0.02 * (len(pids) > 1))
    if any(code >= 0 for code in processes.codes.values()):  # one had ended before its turn came
        return None if not any(processes.codes.values()) else "exporting"
    if _half_written(out) - left:
        return "saving"
    if any(out.glob(".final.*.partial")) or (out / "final").exists():
        return "exporting"
    return "training" if _logged(out) != logged else "starting"


def _wait(processes: Processes, out: Path, left: set[Path], seconds: float, chance: random.Random) -> bool:
    """Until the moment to kill; False where the run was over before.

    Every other time at any moment of a run, else a moment after it has begun to write a checkpoint, the
    first to fifth of this process. ``left`` is what those before have left half written.
    """
    saves = len(left) + chance.randint(1, 5) if chance.random() < 0.5 else 0
    end = time.perf_counter() + (60 if saves else chance.random() * seconds)
    seen = set(left)
    while time.perf_counter() < end and not processes.over():
        seen |= _half_written(out)
        if saves and len(seen) >= saves:
            time.sleep(chance.random() * 0.015)
            break
        time.sleep(0.0005)
    return not processes.over()


def _half_written(out: Path) -> set[Path]:
    """Checkpoints that are being written, or taken away."""
    return set(out.glob("checkpoints/.step-*.partial"))


def _logged(out: Path) -> int:
    log = out / "metrics.jsonl"
    return log.stat().st_size if log.exists() else 0


def assert_same(whole: Path, killed: Path) -> None:
    """Every row of the log, every tensor of the last checkpoint and of the export, and all other state."""
    from safetensors import safe_open

    rows = [
        [{k: v for k, v in json.loads(line).items() if k not in VOLATILE} for line in text.splitlines()]
        for text in ((run / "metrics.jsonl").read_text() for run in (whole, killed))
    ]
    assert rows[0] == rows[1], f"the log of {killed} differs"
    last = "checkpoints/step-00000012"
    states = [json.loads((run / last / "state.json").read_text()) for run in (whole, killed)]
    assert states[0] == states[1], f"the state of {killed} differs"
    files = [file.relative_to(whole) for part in (last, "final") for file in (whole / part).rglob("*.safetensors")]
    assert len(files) == 3, files
    for file in files:
        with safe_open(whole / file, "pt") as theirs, safe_open(killed / file, "pt") as ours:
            assert sorted(theirs.keys()) == sorted(ours.keys())
            differing = [name for name in theirs.keys() if not ours.get_tensor(name).equal(theirs.get_tensor(name))]  # noqa: SIM118
            assert not differing, f"{killed / file}: {differing}"


def prepare() -> None:
    """Import everything, so that a forked process need not."""
    from ptsdk.job import load_job
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry

    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name))
        for cell in ALL:
            load_job(write_job(Path(name), "job", cell.job(Path(name) / "out")), (), Registry(scan()))


def measure(cells: list[Cell], kills: int, seed: int) -> dict[str, Any]:
    """What became of each cell; printed as it is known."""
    results = {}
    for cell in cells:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as name:
            write_data(Path(name))
            try:
                counts = check(cell, Path(name), kills, random.Random(f"{seed} {cell}"))
                entry: dict[str, Any] = {"outcome": "same bits", **{name: counts[name] for name in (*MOMENTS, RESUMED)}}
            except AssertionError as error:
                entry = {"outcome": f"failed: {error}"[:2000], **dict.fromkeys((*MOMENTS, RESUMED), 0)}
        results[str(cell)] = {**entry, "seconds": round(time.perf_counter() - started, 1)}
        print(f"{cell}: {results[str(cell)]}", flush=True)
    return results


def recorded(script: str) -> dict[str, str]:
    """When and where results were made, and by which command."""
    import torch

    return {
        "date": date.today().isoformat(),
        "command": " ".join([f"python -m tests.faults.{script}", *sys.argv[1:]]),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def main() -> int:
    """Kill, print and perhaps record; 1 where a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cells whose name contains one of these words, divided by commas")
    parser.add_argument("--kills", type=int, default=8, help="deaths a cell")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name}")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    prepare()
    cells = [cell for cell in ALL if any(word in str(cell) for word in args.only.split(","))]
    results = measure(cells, args.kills, args.seed)
    if args.record:
        RESULTS.write_text(json.dumps({**recorded("kills"), "cells": results}, indent=1) + "\n")
    return int(any(entry["outcome"] != "same bits" for entry in results.values()))


if __name__ == "__main__":
    sys.exit(main())
