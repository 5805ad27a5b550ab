"""ptsdk: the job of the row, as `ptsdk run` does it."""

from __future__ import annotations

import json

import ptsdk
from tests.benchmarks.contestants.report import FOLDER, told

result = ptsdk.run(FOLDER / "job.yaml", overwrite=True)
lines = (result.output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
steps = [json.loads(line) for line in lines]
told(
    seconds=[step["step_seconds"] for step in steps],
    losses=[step["loss"] for step in steps],
    tokens=[step["tokens"] for step in steps],
    peak_bytes=steps[-1]["peak_memory_bytes"],
)
