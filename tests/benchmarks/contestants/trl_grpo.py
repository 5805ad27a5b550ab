"""TRL's GRPOTrainer, which generates with transformers' ``generate``."""

from __future__ import annotations

import time
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from tests.benchmarks.contestants.hf import ARGUMENTS, CLOCK, ROW, Timing, model, tokenizer
from tests.benchmarks.contestants.report import FOLDER
from tests.benchmarks.inputs import read_rows

ROLLOUTS: list[float] = []
LENGTHS: list[float] = []


class Trainer(GRPOTrainer):
    """The same, with a clock around what generates."""

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = super()._generate_single_turn(*args, **kwargs)
        ROLLOUTS.append(time.perf_counter() - start)
        LENGTHS.append(sum(map(len, result[0])))
        return result


def letters(completions: list[str], **kwargs: Any) -> list[float]:
    """As reward.py has it."""
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in completions]


ARGUMENTS.pop("train_sampling_strategy")
Trainer(
    model(),
    letters,
    GRPOConfig(
        **ARGUMENTS,
        num_generations=ROW["group_size"],
        max_completion_length=ROW["max_new_tokens"],
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        beta=0.0,
        loss_type="grpo",
        shuffle_dataset=False,
    ),
    train_dataset=Dataset.from_list(read_rows(FOLDER / "prompts.jsonl")),
    processing_class=tokenizer(),
    callbacks=[Timing()],
).train()
CLOCK.tell(rollout_seconds=ROLLOUTS, rollout_tokens=LENGTHS)
