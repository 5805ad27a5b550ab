"""What a rollout engine has to do."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from ptsdk.builtin.tiny import Tiny
from ptsdk.contracts.rollout import Completion, RolloutEngine
from ptsdk.generate.sampling import SamplingParams
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.testing.checkpoints import built
from ptsdk.testing.suite import ComponentSuite

FAMILY = Tiny(config={"hidden_size": 16, "intermediate_size": 32})
PROMPTS = ((5, 17, 300), (64,), (5, 17, 300), (9, 33, 21, 7, 2, 80))
PARAMS = SamplingParams(max_new_tokens=7, seed=3)


class RolloutEngineSuite(ComponentSuite):
    """For the kind ``rollout-engine``, on core's small model."""

    kind: ClassVar[str] = "rollout-engine"

    @property
    def model(self) -> CausalLM:
        """The policy, with weights large enough for its distribution not to be flat."""
        model = built(FAMILY)
        with torch.no_grad():
            model.head().weight.mul_(20)
        return model

    def drawn(
        self, params: SamplingParams = PARAMS, prompts: tuple[tuple[int, ...], ...] = PROMPTS
    ) -> list[Completion]:
        """Completions of the prompts."""
        engine: RolloutEngine = self.make()
        return engine.generate(self.model, prompts, params)

    def test_completes_each_prompt(self) -> None:
        """One completion each, in order, no longer than asked, a log-prob a token; none for none."""
        completions = self.drawn()
        assert len(completions) == len(PROMPTS), f"{len(completions)} completions of {len(PROMPTS)} prompts"
        for one in completions:
            assert 1 <= len(one.tokens) <= PARAMS.max_new_tokens, f"{len(one.tokens)} tokens"
            assert len(one.tokens) == len(one.log_probs), "not a log-prob for each token"
            assert one.finish_reason in ("stop", "length"), f"finish_reason {one.finish_reason!r}"
        assert self.drawn(prompts=()) == [], "no prompts, yet it did not return an empty list"

    def test_draws_by_seed_and_place(self) -> None:
        """However prompts are batched, a completion is the same; equal prompts at other places draw for themselves."""
        together = self.drawn()
        alone = [self.drawn(replace(PARAMS, places=(i,)), (prompt,))[0] for i, prompt in enumerate(PROMPTS)]
        assert [c.tokens for c in together] == [c.tokens for c in alone], "a completion depends on its company"
        assert together[0].tokens != together[2].tokens, "two samples of one prompt are the same draw"
        other = self.drawn(replace(PARAMS, seed=4))
        assert [c.tokens for c in other] != [c.tokens for c in together], "another seed draws the same"

    def test_log_probs_are_the_policy_s(self) -> None:
        """Of each token, under the policy at temperature 1, as a full pass computes them."""
        model = self.model
        for prompt, one in zip(PROMPTS, self.drawn(replace(PARAMS, temperature=0.7)), strict=True):
            text = [*prompt, *one.tokens]
            with torch.no_grad():
                logits = model.head().logits(model(Batch.pack([text]))).log_softmax(-1)
            places = range(len(prompt) - 1, len(text) - 1)
            expected = [float(logits[place, text[place + 1]]) for place in places]
            worst = max(abs(a - b) for a, b in zip(expected, one.log_probs, strict=True))
            assert worst < 1e-4, f"log-probs are off by up to {worst:.3g}"

    def test_stops_at_stop_tokens(self) -> None:
        """A stop token ends a completion and is its last token."""
        free = self.drawn()
        stop = free[0].tokens[2]
        for one in self.drawn(replace(PARAMS, stop_ids=(stop,))):
            inside = one.tokens[:-1]
            assert stop not in inside, "it went on after a stop token"
            assert (one.tokens[-1] == stop) == (one.finish_reason == "stop"), f"ended by {one.finish_reason}"

    def test_leaves_the_policy_alone(self) -> None:
        """Mode, weights and gradients of the model stay, and no random number is drawn from torch."""
        model, engine = self.model.train(), self.make()
        before, drawn = {name: p.detach().clone() for name, p in model.named_parameters()}, torch.get_rng_state()
        engine.generate(model, PROMPTS, PARAMS)
        assert model.training and all(m.training for m in model.modules()), "the model is left in another mode"
        assert all(p.equal(before[name]) and p.grad is None for name, p in model.named_parameters()), "weights moved"
        assert torch.get_rng_state().equal(drawn), "a random number was drawn, so a resumed run would differ"
