"""Print the tables of docs/memory.md: what `ptsdk plan` says of shapes that torchtune published numbers for.

python docs/memory.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from ptsdk.plan.estimate import Plan, Planner
from ptsdk.plugins import scan
from ptsdk.registry import Registry

GIB = 2**30
KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
LLAMA: dict[str, dict[str, Any]] = {
    "3.2 3B": {**dict(zip(KEYS, (3072, 8192, 28, 24), strict=True)), "head_dim": 128, "tie_word_embeddings": True},
    "3.1 8B": dict(zip(KEYS, (4096, 14336, 32, 32), strict=True)),
    "3.1 70B": dict(zip(KEYS, (8192, 28672, 80, 64), strict=True)),
    "3.1 405B": dict(zip(KEYS, (16384, 53248, 126, 128), strict=True)),
}
FULL = "train.activation_checkpointing=full"
IN_BACKWARD = ("train.optimizer_in_backward=true", "train.clip_grad_norm=null")
SMALL = "optimizer.use=adamw-8bit"
LORA = "adapter={use: lora, rank: 8, alpha: 16}"
NF4 = "quantizer=nf4"
OFFLOADED = "train.activation_offloading=true"
SHARDED = "strategy=fsdp2"

LADDER: list[tuple[str, tuple[str, ...], str]] = [
    ("packed, chunked loss", (), "42.9"),
    ("+ activation checkpointing", (FULL,), "24.9"),
    ("+ optimizer in the backward", (FULL, *IN_BACKWARD), "23.1"),
    ("+ 8-bit AdamW", (FULL, *IN_BACKWARD, SMALL), "17.6"),
    ("LoRA instead of the last two", (FULL, LORA), "8.5"),
    ("QLoRA", (FULL, LORA, NF4), "4.6"),
]
TABLE: list[tuple[str, str, tuple[str, ...], int, str]] = [
    ("8B full", "3.1 8B", (FULL, *IN_BACKWARD, SMALL), 1, "18.9"),
    ("8B LoRA", "3.1 8B", (FULL, LORA), 1, "16.2"),
    ("8B QLoRA", "3.1 8B", (FULL, LORA, NF4), 1, "7.4"),
    ("70B full", "3.1 70B", (FULL, SHARDED), 8, "13.9"),
    ("70B LoRA", "3.1 70B", (FULL, LORA, SHARDED), 8, "27.6"),
    ("405B QLoRA", "3.1 405B", (FULL, LORA, NF4, SHARDED), 8, "44.8"),
]

LONG: list[tuple[str, tuple[str, ...]]] = [
    ("activation checkpointing", (FULL, LORA)),
    ("+ activation offloading", (FULL, LORA, OFFLOADED)),
]


def planned(model: str, length: int, overrides: tuple[str, ...], processes: int = 1) -> Plan:
    """The plan of two packs of ``length`` tokens a process."""
    config = {"vocab_size": 128256, "num_key_value_heads": 8, **LLAMA[model]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.jsonl").write_text('{"text": "only its name is looked at"}\n')
        micro = 2 if SHARDED in overrides else 2 * processes
        job = {
            "api": 1,
            "model": {"use": "llama", "config": config, "dtype": "bfloat16"},
            "tokenizer": "bytes",
            "data": {"train": {"use": "text", "path": "train.jsonl"}, "packing": True},
            "method": "sft",
            "train": {"steps": 1, "batch_size": 2 * processes, "micro_batch_size": micro},
            "output_dir": "run",
        }
        (folder / "job.yaml").write_text(yaml.safe_dump(job))
        planner = Planner(folder / "job.yaml", overrides, Registry(scan()), processes=processes, length=length)
        return planner.plan()


def row(name: str, plan: Plan, *published: str) -> str:
    """Of the table, in GiB."""
    sizes = plan.bytes()
    cells = [f"{sizes[key] / GIB:.1f}" for key in ("weights", "gradients", "optimizer", "activations", "total")]
    return f"| {' | '.join([name, *cells, *published])} |"


def main() -> None:
    """All tables."""
    ours = "| | weights | gradients | optimizer | activations | total |"
    head = f"{ours} torchtune |\n|---|---|---|---|---|---|---|"
    print(f"Llama 3.2 3B, 2 packs of 4096 tokens, bfloat16\n\n{head}")
    for name, overrides, published in LADDER:
        print(row(name, planned("3.2 3B", 4096, overrides), published), flush=True)
    print(f"\nLlama 3.1, 2 packs of 2048 tokens a process, bfloat16\n\n{head}")
    for name, model, overrides, processes, published in TABLE:
        print(row(name, planned(model, 2048, overrides, processes), published), flush=True)
    print(f"\nLoRA of Llama 3.1 8B, 2 packs of 16384 tokens, bfloat16\n\n{ours}\n|---|---|---|---|---|---|")
    for name, overrides in LONG:
        print(row(name, planned("3.1 8B", 16384, overrides)), flush=True)


if __name__ == "__main__":
    main()
