"""How long 1 GB of weights takes to load, and how long training stands still while it is saved.

    python -m tests.benchmarks.load_save [--rounds N]

Loading is beside a memory-mapped read of the same file into memory. Saving is beside the same save
that is waited for: a run of small steps over a large model saves every few steps, and what the loop
spends on saving is compared with what a checkpoint takes from the first to its last byte.
"""

from __future__ import annotations

import argparse
import gc
import json
import mmap
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.checkpoint.state import Draft
from ptsdk.job.job import Job
from ptsdk.job.load import make_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.assemble import assemble
from ptsdk.train.frozen import open_model
from ptsdk.train.launch import export, run_job
from ptsdk.train.saving import Saver

SHAPE = {
    "vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 13,
    "num_attention_heads": 16, "num_key_value_heads": 8, "tie_word_embeddings": True,
}  # fmt: skip
"""1.0 GB in float32."""


def job_of(folder: Path, registry: Registry, **changes: Any) -> Job:
    """Steps of a few tokens, so that saving is what a run does."""
    (folder / "rows.jsonl").write_text('{"text": "some words to train on"}\n' * 8)
    values: dict[str, Any] = {
        "api": 1,
        "model": {"use": "llama", "config": SHAPE},
        "tokenizer": "bytes",
        "data": {"train": {"use": "text", "path": "rows.jsonl"}, "max_length": 64},
        "method": "sft",
        "optimizer": {"use": "sgd", "lr": 1e-4},
        "loggers": [],
        "train": {"steps": 1, "batch_size": 2},
        "output_dir": str(folder / "run"),
        **changes,
    }
    return make_job(values, registry, folder)


def timed(call: Callable[[], object]) -> float:
    """Seconds; what it made is let go of afterwards."""
    gc.collect()
    started = time.perf_counter()
    made = call()
    seconds = time.perf_counter() - started
    del made
    return seconds


def loading(folder: Path, registry: Registry, rounds: int) -> dict[str, float]:
    """Medians of reading all bytes of a mapped file, and of building a model that trains from it."""
    run = assemble(job_of(folder, registry), registry)
    export(run, RunDir(folder / "made"))
    del run
    path = folder / "made" / "final"
    job = job_of(folder, registry, model={"path": str(path)})

    def mapped() -> bytes:
        with (path / "model.safetensors").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            return m.read()

    def loaded() -> object:
        from ptsdk.train.assemble import build_policy

        return build_policy(job, open_model(job.model, job, registry), job.strategy.setup())

    calls = {"mapped_read_s": mapped, "load_s": loaded}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(timed(call))
    result = {name: statistics.median(values) for name, values in times.items()}
    return {
        "bytes": (path / "model.safetensors").stat().st_size,
        **result,
        "ratio": result["load_s"] / result["mapped_read_s"],
    }


def saving(folder: Path, registry: Registry, rounds: int, aside: bool) -> dict[str, float]:
    """Seconds that the loop spends on a checkpoint that is not the last, and that it takes to be complete."""
    spent, took = [], []
    save, settle, write = Saver.save, Saver.settle, Draft.write

    def clocked(times: list[float], call: Callable[..., Any]) -> Callable[..., Any]:
        def clocking(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                if not kwargs.get("last"):
                    times.append(time.perf_counter() - started)

        return clocking

    train = {"steps": 12 * rounds, "batch_size": 2, "save_every": 12, "async_save": aside, "keep_last": 1}
    job = job_of(folder, registry, train=train, output_dir=str(folder / f"run-{aside}"))
    Saver.save, Draft.write = clocked(spent, save), clocked(took, write)  # type: ignore[method-assign]
    started = time.perf_counter()
    try:
        run_job(job, registry)
    finally:
        Saver.save, Saver.settle, Draft.write = save, settle, write  # type: ignore[method-assign]
    del took[-1]  # the last is waited for
    whole = statistics.median(took)
    return {
        "blocked_s": statistics.median(spent),
        "write_s": whole,
        "share": statistics.median(spent) / whole,
        "run_s": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    registry = Registry(scan())
    with tempfile.TemporaryDirectory(dir=".") as name:
        print(json.dumps(loading(Path(name).absolute(), registry, args.rounds)), flush=True)
        for aside in (False, True):
            print(aside, json.dumps(saving(Path(name).absolute(), registry, args.rounds, aside)), flush=True)


if __name__ == "__main__":
    main()
