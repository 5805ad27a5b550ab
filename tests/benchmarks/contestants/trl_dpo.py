"""TRL's DPOTrainer on the same pairs. It pads: the refactored trainer has no padding-free mode."""

from __future__ import annotations

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from tests.benchmarks.contestants.hf import ARGUMENTS, CLOCK, ROW, Timing, model, tokenizer
from tests.benchmarks.contestants.report import FOLDER
from tests.benchmarks.inputs import read_rows

DPOTrainer(
    model(),
    args=DPOConfig(**ARGUMENTS, beta=0.1, max_length=ROW["max_length"]),
    train_dataset=Dataset.from_list(read_rows(FOLDER / "pairs.jsonl")),
    processing_class=tokenizer(),
    callbacks=[Timing()],
).train()
CLOCK.tell()
