"""Supervised fine-tuning on packed text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks import inputs
from tests.benchmarks.row import (
    OPERATIONS,
    OURS,
    Contestant,
    Hold,
    Row,
    faster,
    leaner,
    mine,
    roofline,
    training_metrics,
)
from tests.benchmarks.training import LORA, write_items, write_job

NO_GEMMA_3 = "torchtune 0.6.1 has no Gemma 3"
WITHOUT = "ptsdk, not quantised"
RESIDENT = (
    "1072 MB are the mapped weights, 86 MB libraries, 230 MB Python and torch before the first step, 345 MB what the "
    "forward keeps of 512 tokens, the rest optimizer, gradients and what the heap does not give back (resident memory "
    "sampled every 20 ms)"
)
REQUANTISED = (
    "the checkpoint was in 4 bits of another kind before it came here, and takes the change of levels as noise; "
    "bitsandbytes' nf4 loses as much, and blocks of 16 with the scales of least error still three quarters of it"
)


def full(folder: Path) -> None:
    train = {"steps": 4, "batch_size": 4, "micro_batch_size": 4}
    write_job(folder, inputs.llama(), packed(512), train, lr=1e-3)
    write_items(folder)


def lora(folder: Path, **more: Any) -> None:
    train = {"steps": 4, "batch_size": 2, "micro_batch_size": 2}
    write_job(folder, inputs.gemma(), packed(256), train, lr=1e-3, adapter=LORA, **more)
    write_items(folder)


def qlora(folder: Path) -> None:
    lora(folder, quantizer="nf4")


def packed(length: int) -> dict[str, Any]:
    return {"train": {"use": "text", "path": str(inputs.text())}, "max_length": length, "packing": True}


def off_by(measured: Any) -> float:
    """How far the last loss is from that of the same run on the base as it was."""
    return float(abs(measured[OURS]["last_loss"] / measured[WITHOUT]["last_loss"] - 1))


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
        checks=(Contestant("products"),),
        profile=OPERATIONS,
    ),
    Row(
        "sft-lora",
        "LoRA of rank 8 on every linear layer of Gemma 3 270M; 2 packs of 256 tokens a step",
        {OURS: Contestant("ours"), "trl": Contestant("trl_sft", ".venv-peers")},
        (faster(1.3), leaner(0.6, RESIDENT), roofline(0.75)),
        lora,
        training_metrics,
        absent={"torchtune": NO_GEMMA_3},
        checks=(Contestant("products"),),
        profile=OPERATIONS,
    ),
    Row(
        "sft-qlora",
        "The same on an nf4 base; TRL's is quantised by bitsandbytes",
        {
            OURS: Contestant("ours"),
            WITHOUT: Contestant("ours", arguments=("~quantizer",)),
            "trl": Contestant("trl_sft", ".venv-peers", ("nf4",)),
        },
        (
            Hold("0.6 byte a quantised parameter or less", mine("quantised_bytes_a_parameter"), 0.6, at_least=False),
            Hold("last loss within 2 % of that without quantisation", off_by, 0.02, at_least=False, why=REQUANTISED),
        ),
        qlora,
        training_metrics,
        absent={"torchtune": NO_GEMMA_3},
        checks=(Contestant("base_bytes"),),
        profile=OPERATIONS,
    ),
)
