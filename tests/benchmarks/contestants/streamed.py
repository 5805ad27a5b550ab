"""Packs of a stream: the most memory that reading as many of them takes, of a file and of one four times as long."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.contestants.report import FOLDER, peak_bytes, told

ROWS = (250_000, 1_000_000)
STEPS = 20
"""Of 8 packs each."""


def write_rows(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": f"row {i} of a file " + "x" * (i % 300)}) + "\n" for i in range(rows))


def stream(path: Path) -> int:
    """The peak of a process that reads packs of the file in the order a run would."""
    from ptsdk.job import load_job
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry
    from ptsdk.train.assemble import assemble

    model = {"use": "tiny", "config": {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}}
    data = {"train": {"use": "text", "path": str(path)}, "max_length": 4096, "packing": True, "streaming": True}
    job = {"api": 1, "model": model, "tokenizer": {"use": "bytes"}, "data": data, "method": "sft", "optimizer": "sgd"}
    file = path.with_suffix(".yaml")
    train = {"steps": STEPS, "batch_size": 8}
    file.write_text(json.dumps({**job, "train": train, "output_dir": str(path.with_suffix(""))}), encoding="utf-8")
    registry = Registry(scan())
    run = assemble(load_job(file, (), registry), registry)
    for _ in range(STEPS):
        if not run.train_plan.take(run.progress):
            raise RuntimeError("the stream has ended")
    return peak_bytes()


def peak_of(rows: int) -> int:
    """Of a process of its own."""
    path = FOLDER / f"streamed-{rows}.jsonl"
    write_rows(path, rows)
    command = [sys.executable, "-m", __spec__.name, str(FOLDER), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    path.unlink()
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    if len(sys.argv) > 2:
        print(stream(Path(sys.argv[2])))
        return
    few, many = map(peak_of, ROWS)
    told(streamed_growth=many / few, streamed_bytes_per_row=(many - few) / (ROWS[1] - ROWS[0]))


if __name__ == "__main__":
    main()
