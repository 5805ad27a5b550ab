"""Supervised fine-tuning on packed text."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks import inputs
from tests.benchmarks.row import OURS, Contestant, Row, faster, leaner, roofline, training_metrics
from tests.benchmarks.training import LORA, write_items, write_job

NO_GEMMA_3 = "torchtune 0.6.1 has no Gemma 3"


def packed(length: int) -> dict[str, object]:
    return {"train": {"use": "text", "path": str(inputs.text())}, "max_length": length, "packing": True}


def full(folder: Path) -> None:
    train = {"steps": 5, "batch_size": 4, "micro_batch_size": 4}
    write_job(folder, inputs.llama(), packed(512), train, lr=1e-3)
    write_items(folder)


def lora(folder: Path) -> None:
    train = {"steps": 6, "batch_size": 2, "micro_batch_size": 2}
    write_job(folder, inputs.gemma(), packed(256), train, lr=1e-3, adapter=LORA)
    write_items(folder)


ROWS = (
    Row(
        "sft-full",
        "Every weight of a new Llama, 256 wide, 8 layers, a tied vocabulary of 131,072; 4 packs of 512 tokens a step",
        {
            OURS: Contestant("ours"),
            "trl": Contestant("trl_sft", ".venv-peers"),
            "torchtune": Contestant("torchtune_sft", ".venv-torchtune"),
        },
        (faster(1.3), leaner(0.6), roofline(0.75)),
        full,
        training_metrics,
        profiled=True,
    ),
    Row(
        "sft-lora",
        "LoRA of rank 8 on every linear layer of Gemma 3 270M; 2 packs of 256 tokens a step",
        {OURS: Contestant("ours"), "trl": Contestant("trl_sft", ".venv-peers")},
        (faster(1.3), leaner(0.6), roofline(0.75)),
        lora,
        training_metrics,
        absent={"torchtune": NO_GEMMA_3},
        profiled=True,
    ),
)
