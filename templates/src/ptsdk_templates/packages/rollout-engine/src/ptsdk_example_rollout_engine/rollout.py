"""The engine itself, imported when a method that generates says ``rollout: example-rollout-engine``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from ptsdk.contracts.rollout import Completion, RolloutEngine
from ptsdk.generate.sampling import sample, uniform
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM

if TYPE_CHECKING:
    from ptsdk.generate.sampling import SamplingParams


class ExampleEngine(RolloutEngine):
    """Reads the whole text anew for each token: no cache, so nothing to get wrong but the loop."""

    @torch.no_grad()
    def generate(self, model: CausalLM, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Completion]:
        """One completion of each prompt, in order."""
        # In a larger batch that is spread over processes a prompt keeps its place, so that what is
        # drawn for it depends on the seed and that place alone.
        places = params.places or range(len(prompts))
        return [self._complete(model, prompt, place, params) for prompt, place in zip(prompts, places, strict=True)]

    def _complete(self, model: CausalLM, prompt: Sequence[int], place: int, params: SamplingParams) -> Completion:
        device = next(model.parameters()).device
        tokens: list[int] = []
        log_probs: list[float] = []
        for step in range(params.max_new_tokens):
            hidden_states = model(Batch.pack([[*prompt, *tokens]]).to(device))
            logits = model.head().logits(hidden_states[-1:]).float()
            token, log_prob = sample(logits, params, [uniform(params.seed, place, step)])
            tokens.append(int(token))
            log_probs.append(float(log_prob))
            if tokens[-1] in params.stop_ids:
                return Completion(tuple(tokens), tuple(log_probs), "stop")
        return Completion(tuple(tokens), tuple(log_probs), "length")
