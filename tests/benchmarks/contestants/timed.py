"""Components of the job of the grpo row: the engine with a clock around it, and the reward."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptsdk.builtin.rollout import Local
from ptsdk.contracts.reward import Reward
from ptsdk.contracts.rollout import Completion
from ptsdk.generate.sampling import SamplingParams
from ptsdk.nn.causal_lm import CausalLM


class Timed(Local):
    """ptsdk's own engine; a line a rollout in ``log``."""

    log: str

    def generate(self, model: CausalLM, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Completion]:
        start = time.perf_counter()
        completions = super().generate(model, prompts, params)
        seconds, tokens = time.perf_counter() - start, sum(len(each.tokens) for each in completions)
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seconds": seconds, "tokens": tokens}) + "\n")
        return completions


class Vowels(Reward):
    """The share of vowels: something that differs between completions of a model that knows nothing."""

    def score(self, completions: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[float]:
        return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in completions]
