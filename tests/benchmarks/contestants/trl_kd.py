"""TRL's GKDTrainer with ``lmbda=0, beta=0``: the forward KL on given text. Its stable DistillationTrainer only
distils what the student writes."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from trl.experimental.gkd import GKDConfig, GKDTrainer

from tests.benchmarks.contestants.hf import ARGUMENTS, CLOCK, ROW, Timing, model, tokenizer
from tests.benchmarks.contestants.report import items


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Padded to the longest; the prompt, which nobody generates from, is the first token."""

    def padded(key: str, value: int) -> torch.Tensor:
        return pad_sequence([torch.tensor(row[key]) for row in rows], batch_first=True, padding_value=value)

    tokens = padded("tokens", 0)
    mask = pad_sequence([torch.ones(len(row["tokens"]), dtype=torch.long) for row in rows], batch_first=True)
    return {"input_ids": tokens, "attention_mask": mask, "labels": padded("labels", -100), "prompts": tokens[:, :1]}


rows = [{"tokens": item["tokens"], "labels": [-100, *item["labels"][:-1]]} for item in items()]
GKDTrainer(
    model(),
    model(ROW["teacher"]),
    GKDConfig(**ARGUMENTS, lmbda=0.0, beta=0.0, temperature=1.0, max_length=ROW["max_length"]),
    data_collator=collate,
    train_dataset=Dataset.from_list(rows),
    processing_class=tokenizer(),
    callbacks=[Timing()],
).train()
CLOCK.tell()
