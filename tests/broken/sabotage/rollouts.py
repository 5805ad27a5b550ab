"""Rollout engines: core's own, but."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ptsdk.builtin.rollout import Local
from ptsdk.contracts.rollout import Completion
from ptsdk.generate.sampling import SamplingParams
from ptsdk.nn.causal_lm import CausalLM

Prompts = Sequence[Sequence[int]]


class NothingForNone(Local):
    def generate(self, model: CausalLM, prompts: Prompts, params: SamplingParams) -> Any:
        return super().generate(model, prompts, params) or None


class ByBatch(Local):
    def generate(self, model: CausalLM, prompts: Prompts, params: SamplingParams) -> list[Completion]:
        return super().generate(model, prompts, replace(params, places=None))


class HalfLogProbs(Local):
    def generate(self, model: CausalLM, prompts: Prompts, params: SamplingParams) -> list[Completion]:
        completions = super().generate(model, prompts, params)
        return [replace(one, log_probs=tuple(value / 2 for value in one.log_probs)) for one in completions]


class NeverStops(Local):
    def generate(self, model: CausalLM, prompts: Prompts, params: SamplingParams) -> list[Completion]:
        return super().generate(model, prompts, replace(params, stop_ids=()))


class LeavesEval(Local):
    def generate(self, model: CausalLM, prompts: Prompts, params: SamplingParams) -> list[Completion]:
        model.eval()
        return super().generate(model, prompts, params)
