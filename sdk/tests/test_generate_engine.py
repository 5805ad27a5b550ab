"""Completions do not depend on how they are batched, and are what the model says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ptsdk.builtin.rollout import Local
from ptsdk.builtin.tiny import Tiny
from ptsdk.contracts.rollout import Completion
from ptsdk.errors import RunError, UserError
from ptsdk.generate import engine
from ptsdk.generate.engine import generate
from ptsdk.generate.sampling import SamplingParams, sample, uniform
from ptsdk.nn.attention import Attend
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.train.compiling import compile_blocks

PROMPTS = [[1, 2, 3], [4] * 9, [5, 6], [1, 2, 3], [7, 3, 7, 9], [8], [2, 2], [30, 40, 50, 60, 70, 80]]
STOPS = tuple(range(100, 150))


def tiny(**config: Any) -> CausalLM:
    """In float64, so that no rounding decides a draw."""
    model = Tiny().build({"hidden_size": 32, "intermediate_size": 48, "vocab_size": 300, **config}).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> CausalLM:
    return tiny()


def one_by_one(model: CausalLM, params: SamplingParams) -> list[Completion]:
    """Without cache or batch: the whole text through the model for every token."""
    done = []
    for place, prompt in enumerate(PROMPTS):
        tokens: list[int] = []
        log_probs: list[float] = []
        while len(tokens) < params.max_new_tokens and not (tokens and tokens[-1] in params.stop_ids):
            with torch.no_grad():
                logits = model.head().logits(model(Batch.pack([[*prompt, *tokens]]))[-1:])
            token, log_prob = sample(logits, params, [uniform(params.seed, place, len(tokens))])
            tokens.append(int(token))
            log_probs.append(float(log_prob))
        reason = "stop" if tokens[-1] in params.stop_ids else "length"
        done.append(Completion(tuple(tokens), tuple(log_probs), reason))
    return done


def assert_same(ours: Sequence[Completion], theirs: Sequence[Completion]) -> None:
    assert [c.tokens for c in ours] == [c.tokens for c in theirs]
    assert [c.finish_reason for c in ours] == [c.finish_reason for c in theirs]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(torch.tensor(a.log_probs), torch.tensor(b.log_probs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("slots", [1, 2, 3, 8, 50])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_slots_change_nothing(model: CausalLM, slots: int, temperature: float) -> None:
    params = SamplingParams(max_new_tokens=14, temperature=temperature, seed=5, stop_ids=STOPS)
    expected = one_by_one(model, params)
    assert {c.finish_reason for c in expected} == {"stop", "length"}
    assert len({len(c.tokens) for c in expected}) > 2, "rows must end at different steps"
    assert_same(generate(model, PROMPTS, params, slots), expected)


def test_filters_reach_the_engine(model: CausalLM) -> None:
    params = SamplingParams(max_new_tokens=8, temperature=1.7, top_k=9, top_p=0.8, min_p=0.05)
    assert_same(generate(model, PROMPTS, params, 3), one_by_one(model, params))


@pytest.fixture
def reads(model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The lengths of the documents of every pass of the model."""
    noted: list[tuple[int, ...]] = []
    forward = type(model).forward

    def note(self: CausalLM, batch: Batch, attend: Attend | None = None) -> Tensor:
        noted.append(batch.seq_lens)
        return forward(self, batch, attend)

    monkeypatch.setattr(type(model), "forward", note)
    return noted


def test_prompts_are_read_in_parts_that_fit(
    model: CausalLM, reads: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SamplingParams(max_new_tokens=5)
    expected = generate(model, PROMPTS, params)
    reads.clear()
    monkeypatch.setattr(engine, "PREFILL_TOKENS", 6)
    assert_same(generate(model, PROMPTS, params), expected)
    assert reads == [(3,), (9,), (2, 3), (4, 1), (2,), (6,)] + [(1,) * len(PROMPTS)] * 4


def test_equal_prompts_are_read_once_and_drawn_apart(model: CausalLM, reads: list[tuple[int, ...]]) -> None:
    group = generate(model, [[1, 2, 3]] * 6, SamplingParams(max_new_tokens=6))
    assert reads == [(3,)] + [(1,) * 6] * 5
    assert len({completion.tokens for completion in group}) == 6


def test_a_share_of_a_batch_draws_what_the_batch_draws(model: CausalLM) -> None:
    whole = generate(model, PROMPTS, SamplingParams(max_new_tokens=6, seed=9))
    part = generate(model, PROMPTS[1::2], SamplingParams(max_new_tokens=6, seed=9, places=(1, 3, 5, 7)))
    assert_same(part, whole[1::2])
    assert generate(model, PROMPTS, SamplingParams(max_new_tokens=6)) != whole, "another seed, other draws"


def test_a_completion_ends_where_the_context_does() -> None:
    model = tiny(max_position_embeddings=10)
    ended = generate(model, [[1] * 9, [1] * 3], SamplingParams(max_new_tokens=5))
    assert [(len(c.tokens), c.finish_reason) for c in ended] == [(1, "length"), (5, "length")]


def test_every_bad_prompt_is_named(model: CausalLM) -> None:
    with pytest.raises(UserError) as error:
        generate(model, [[1], [], [2, 300], [-1]], SamplingParams())
    assert [problem.path for problem in error.value.problems] == ["prompts.1", "prompts.2", "prompts.3"]
    with pytest.raises(UserError, match="10 tokens, and the model's context of 10"):
        generate(tiny(max_position_embeddings=10), [[1] * 10], SamplingParams())
    with pytest.raises(UserError, match="1 places for 2 prompts"):
        generate(model, [[1], [2]], SamplingParams(places=(0,)))
    with pytest.raises(UserError, match="slots is 0"):
        generate(model, [[1]], SamplingParams(), slots=0)


def test_no_prompts_no_completions(model: CausalLM) -> None:
    assert generate(model, [], SamplingParams()) == []


def test_modes_are_put_back_even_after_an_error() -> None:
    model = tiny().train()
    model.layers[0].eval()
    before = [module.training for module in model.modules()]
    seen: list[tuple[bool, bool]] = []
    model.layers[1].register_forward_hook(
        lambda module, *_: seen.append((module.training, torch.is_inference_mode_enabled()))
    )
    generate(model, [[1]], SamplingParams(max_new_tokens=2))
    assert seen == [(False, True)] * 2
    assert [module.training for module in model.modules()] == before
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(RunError, match="not finite"):
        generate(model, [[1]], SamplingParams(max_new_tokens=2))
    assert [module.training for module in model.modules()] == before


def test_the_model_trains_on_afterwards() -> None:
    model = tiny().train()
    generate(model, [[1, 2]], SamplingParams(max_new_tokens=3))
    model(Batch.pack([[1, 2, 3]])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.layers[0].parameters())


def test_tokens_are_told_as_they_are_drawn(model: CausalLM) -> None:
    told: dict[int, list[int]] = {}
    params = SamplingParams(max_new_tokens=7, stop_ids=STOPS)
    ended = generate(model, PROMPTS, params, 3, lambda prompt, token: told.setdefault(prompt, []).append(token))
    assert [tuple(told[i]) for i in range(len(PROMPTS))] == [c.tokens for c in ended]


def test_bfloat16_weights_give_float32_log_probs() -> None:
    model = tiny(max_position_embeddings=40).bfloat16()
    (completion,) = generate(model, [[1, 2]], SamplingParams(max_new_tokens=3, temperature=0))
    with torch.no_grad():
        logits = model.head().logits(model(Batch.pack([[1, 2]]))[-1]).float()
    assert completion.log_probs[0] == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-6)


@pytest.fixture
def compiled() -> Iterator[tuple[CausalLM, list[int]]]:
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        calls.append(1)
        return graph.forward

    model = tiny()
    compile_blocks(model, backend=backend)
    yield model, calls
    torch.compiler.reset()


def test_compiled_blocks_run_uncompiled(compiled: tuple[CausalLM, list[int]], model: CausalLM) -> None:
    """Each step has another shape and another Attend: every one would be compiled anew."""
    params = SamplingParams(max_new_tokens=5)
    assert_same(generate(compiled[0], PROMPTS, params), generate(model, PROMPTS, params))
    assert compiled[1] == []
    compiled[0](Batch.pack([[1, 2]]))
    assert compiled[1] != [], "outside of generate they are compiled"


def test_the_built_in_rollout_engine(model: CausalLM) -> None:
    params = SamplingParams(max_new_tokens=5)
    assert Local(slots=2).generate(model, PROMPTS, params) == generate(model, PROMPTS, params, slots=2)
