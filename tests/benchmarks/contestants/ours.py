"""ptsdk: the job of the row, as `ptsdk run` does it, with overrides where they are given."""

from __future__ import annotations

import json
import sys

import ptsdk
from tests.benchmarks.contestants.report import FOLDER, told

result = ptsdk.run(FOLDER / "job.yaml", sys.argv[2:], overwrite=True)
lines = (result.output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
steps = [json.loads(line) for line in lines if "step_seconds" in line]
rollouts = result.output_dir / "rollouts.jsonl"
written = [json.loads(line) for line in rollouts.read_text(encoding="utf-8").splitlines()] if rollouts.exists() else []
told(
    seconds=[step["step_seconds"] for step in steps],
    losses=[step["loss"] for step in steps],
    peak_bytes=steps[-1]["peak_memory_bytes"],
    rollout_seconds=[rollout["seconds"] for rollout in written],
    rollout_tokens=[rollout["tokens"] for rollout in written],
)
