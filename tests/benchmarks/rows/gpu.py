"""Supervised fine-tuning on a GPU: the work of ``sft.py`` in the size of Llama 3.2 1B, in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks import inputs
from tests.benchmarks.row import OPERATIONS, OURS, Contestant, Row, faster, leaner, training_metrics
from tests.benchmarks.rows.sft import packed
from tests.benchmarks.training import LORA, write_items, write_job

SHAPE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64,
}  # fmt: skip
STEPS, BATCH, LENGTH = 12, 4, 2048


def full(folder: Path, **more: Any) -> None:
    model = {"path": str(inputs.llama("llama-1b", **SHAPE)), "dtype": "bfloat16"}
    train = {"steps": STEPS, "batch_size": BATCH, "micro_batch_size": BATCH}
    write_job(folder, model, packed(LENGTH), train, lr=1e-4, **more)
    write_items(folder)


def lora(folder: Path) -> None:
    full(folder, adapter=LORA)


PAIR = {OURS: Contestant("ours"), "trl": Contestant("trl_sft", ".venv-peers")}
STATE = "8 bytes a parameter, weights, gradients and AdamW's state in bfloat16, are 9.2 GiB for everyone"


ROWS = (
    Row(
        "gpu-sft-full",
        f"Every weight of a new Llama in the shape of 3.2 1B, bfloat16; {BATCH} packs of {LENGTH} tokens a step",
        {**PAIR, "trl with liger-kernel": Contestant("trl_sft", ".venv-liger", ("liger",))},
        (faster(1.3), leaner(0.6, STATE)),
        full,
        training_metrics,
        profile=OPERATIONS,
        device="cuda",
    ),
    Row(
        "gpu-sft-lora",
        "LoRA of rank 8 on every linear layer of the same model",
        PAIR,
        (faster(1.3), leaner(0.6)),
        lora,
        training_metrics,
        profile=OPERATIONS,
        device="cuda",
    ),
)
