"""Combinations that cannot work: what `ptsdk check` must say of each, before anything is read."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

PREFERENCE = {"train": {"use": "preference", "path": "rows.jsonl"}}
PROMPTS = {"train": {"use": "prompts", "path": "rows.jsonl"}}
GRPO = {"use": "grpo", "group_size": 4, "rewards": [{"use": "exact_match", "column": "completion"}]}
REFUSED: dict[str, dict[str, Any]] = {
    "full + nf4": {"quantizer": "nf4"},
    "full + int8": {"quantizer": "int8"},
    "full + int4": {"quantizer": "int4"},
    "fsdp2 + adafactor": {"strategy": "fsdp2", "optimizer": "adafactor"},
    "sft + preference": {"data": PREFERENCE},
    "sft + sigmoid": {"loss": "sigmoid"},
    "dpo + instruct": {"method": "dpo"},
    "dpo + cross_entropy": {"method": "dpo", "loss": "cross_entropy", "data": PREFERENCE},
    "dpo + packing": {"method": "dpo", "data": {**PREFERENCE, "packing": True}},
    "grpo + instruct": {"method": GRPO},
    "grpo + reverse_kl": {"method": GRPO, "loss": "reverse_kl", "data": PROMPTS},
    "kd + grpo": {"method": {"use": "kd", "teacher": {"use": "tiny", "config": {}}}, "loss": "grpo"},
}
"""What each changes in a job that is sound. Its name is that of the two components that disagree."""

ROW = {"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"}


def refusal(changes: dict[str, Any]) -> list[str]:
    """The messages of `ptsdk check` about a sound job with these changes."""
    from ptsdk.errors import UserError
    from ptsdk.job import load_job
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry

    job = {
        "api": 1,
        "model": {"use": "tiny", "config": {}},
        "tokenizer": "bytes",
        "data": {"train": {"use": "instruct", "path": "rows.jsonl"}},
        "method": "sft",
        "train": {"steps": 1, "batch_size": 4},
        "output_dir": "run",
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
        path = Path(folder) / "job.yaml"
        path.write_text(yaml.safe_dump({**job, **changes}))
        try:
            load_job(path, (), Registry(scan()))
        except UserError as error:
            return [problem.message for problem in error.problems]
    return []
