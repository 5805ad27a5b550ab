"""Completions of many prompts at once, with a KV cache and continuous slots.

A finished completion leaves the batch and the next prompt takes its place, so a step costs what
its live rows cost. Equal prompts that start together (a group of a policy method) are read once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ptsdk.contracts.rollout import Completion
from ptsdk.errors import Problem, UserError
from ptsdk.generate.sampling import SamplingParams, sample, uniform
from ptsdk.nn.attention import Attend
from ptsdk.nn.batch import IGNORE, Batch
from ptsdk.nn.causal_lm import CausalLM, eager
from ptsdk.nn.head import logits_of
from ptsdk.nn.kv_cache import KVCache

PREFILL_TOKENS = 8192
"""Prompt tokens that are read in one pass (or one longer prompt): bounds its activations."""

OnToken = Callable[[int, int], object]
"""Is told each token as it is drawn: (index of the prompt, token). What it returns ends the completion,
with the reason ``stop``, where it is true."""


@torch.inference_mode()
def generate(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    slots: int = 64,
    on_token: OnToken | None = None,
) -> list[Completion]:
    """One completion of each prompt, in order.

    What is drawn depends on ``params.seed``, the prompt's place and the step, so up to rounding in
    the model the result is the same for any number of slots. A completion that reaches the model's
    ``max_position_embeddings`` ends there, with the reason ``length``.

    Args:
        model: runs in eval mode, and is left in the mode it was in.
        prompts: token ids, special ones included.
        params: how to draw.
        slots: sequences that grow at a time; their keys and values are kept.
        on_token: is told each token as it is drawn.

    Raises:
        UserError: a prompt that is empty, too long for the model, or has an unknown id.
        RunError: the model's logits are not finite.
    """
    if slots < 1:
        raise UserError(Problem(f"slots is {slots}", hint="it must be at least 1", path="slots"))
    limits = token_limits(model, prompts, params)
    with evaluating(model), eager(model):
        return _Generation(model, prompts, params, limits, slots, on_token).run()


@torch.no_grad()
def rehearse(model: CausalLM, prompts: Sequence[Sequence[int]], params: SamplingParams, slots: int = 16) -> None:
    """What ``generate`` holds at its fullest: the prompts of every slot are read, and one token is drawn
    where the completions end. What is drawn does not matter: the tensors may have no data.

    Raises:
        UserError: as ``generate``.
    """
    endless = replace(params, stop_ids=())
    limits = token_limits(model, prompts, endless)
    with evaluating(model), eager(model):
        generation = _Generation(model, prompts, endless, limits, slots, None)
        generation.fill()
        for row in generation.rows:
            row.tokens = [0] * (row.limit - 1)
        generation.decode()


def token_limits(model: CausalLM, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[int]:
    """How many tokens each completion may have.

    Raises:
        UserError: see ``generate``; every prompt that is wrong is named.
    """
    context = model.config.get("max_position_embeddings")
    room = context if isinstance(context, int) else None
    problems = [_fault(i, prompt, model.vocab_size, room) for i, prompt in enumerate(prompts)]
    if params.places is not None and len(params.places) != len(prompts):
        problems.append(Problem(f"{len(params.places)} places for {len(prompts)} prompts", path="places"))
    if wrong := [problem for problem in problems if problem]:
        raise UserError(*wrong)
    wish = params.max_new_tokens
    return [wish if room is None else min(wish, room - len(prompt)) for prompt in prompts]


def _fault(index: int, prompt: Sequence[int], vocab_size: int, room: int | None) -> Problem | None:
    place = f"prompts.{index}"
    if not prompt:
        return Problem("the prompt has no tokens", "start it with the BOS token, or with text", path=place)
    if room is not None and len(prompt) >= room:
        message = f"the prompt has {len(prompt)} tokens, and the model's context of {room} has to hold the answer too"
        return Problem(message, "shorten it", path=place)
    if not 0 <= min(prompt) <= max(prompt) < vocab_size:
        unknown = next(token for token in prompt if not 0 <= token < vocab_size)
        hint = "is it the tokenizer of this model?"
        return Problem(f"token {unknown} is not in the model's vocabulary of {vocab_size}", hint, path=place)
    return None


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Inside, every module is in eval mode; afterwards each is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@dataclass
class _Row:
    """A completion that is being written. Its place in the list of rows is its slot."""

    prompt: int
    prompt_length: int
    limit: int
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish_reason: str = ""

    @property
    def position(self) -> int:
        """Of the newest token, which the model has not read yet; so many tokens are in the cache."""
        return self.prompt_length + len(self.tokens) - 1


class _Generation:
    """The state of one call of ``generate``."""

    def __init__(
        self,
        model: CausalLM,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        limits: Sequence[int],
        slots: int,
        on_token: OnToken | None,
    ) -> None:
        self.model, self.prompts, self.params, self.limits = model, prompts, params, limits
        self.device = next(model.parameters()).device
        self.slots = min(slots, len(prompts))
        longest = max((len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)), default=0)
        self.cache = KVCache(self.slots, longest)
        self.waiting = deque(range(len(prompts)))
        self.rows: list[_Row] = []
        self.done: dict[int, Completion] = {}
        self.on_token = on_token
        self.buffers: Tensor | None = None

    def run(self) -> list[Completion]:
        """Until every prompt has its completion."""
        while self.waiting or self.rows:
            self.fill()
            if self.rows:
                self.decode()
        return [self.done[i] for i in range(len(self.prompts))]

    def fill(self) -> None:
        """Read waiting prompts until no slot is free."""
        while self.waiting and len(self.rows) < self.slots:
            self._admit()

    def _admit(self) -> None:
        """Read the next prompts into free slots and draw their first tokens."""
        groups = self._next_prompts()
        first = len(self.rows)
        slots: list[list[int]] = []
        for group in groups.values():
            slots.append(list(range(len(self.rows), len(self.rows) + len(group))))
            self.rows += [_Row(i, len(self.prompts[i]), self.limits[i]) for i in group]
        lengths = [len(document) for document in groups]
        tokens = [token for document in groups for token in document]
        positions = [position for length in lengths for position in range(length)]
        hidden = self._run(tokens, positions, lengths, self.cache.prefill(lengths, slots))
        last = torch.tensor(lengths, device=self.device).cumsum(0) - 1
        copies = torch.tensor([len(group) for group in groups.values()], device=self.device)
        self._draw(self.rows[first:], hidden[last].repeat_interleave(copies, dim=0))

    def _next_prompts(self) -> dict[tuple[int, ...], list[int]]:
        """Prompts for the free slots, taken off the queue: indices by distinct prompt."""
        groups: dict[tuple[int, ...], list[int]] = {}
        tokens = 0
        for _ in range(min(self.slots - len(self.rows), len(self.waiting))):
            prompt = tuple(self.prompts[self.waiting[0]])
            if prompt not in groups:
                if groups and tokens + len(prompt) > PREFILL_TOKENS:
                    break
                tokens += len(prompt)
            groups.setdefault(prompt, []).append(self.waiting.popleft())
        return groups

    def decode(self) -> None:
        """One more token for every row."""
        positions = [row.position for row in self.rows]
        tokens = [row.tokens[-1] for row in self.rows]
        hidden = self._run(tokens, positions, [1] * len(tokens), self.cache.decode(positions, self.device))
        self._draw(list(self.rows), hidden)

    def _run(self, tokens: list[int], positions: list[int], seq_lens: list[int], attend: Attend) -> Tensor:
        """Hidden states [N, D]."""
        ids, places = (torch.tensor(values, device=self.device) for values in (tokens, positions))
        batch = Batch(ids, places, torch.full_like(ids, IGNORE), tuple(seq_lens))
        hidden: Tensor = self.model(batch, attend)
        return hidden

    def _draw(self, rows: Sequence[_Row], hidden: Tensor) -> None:
        """A token for each of ``rows`` [B] from its ``hidden`` state [B, D]; those that end leave."""
        head = self.model.head()
        logits, scratch = (buffer[: len(rows)] for buffer in self._buffers(hidden, len(head.weight)))
        logits_of(hidden, head, logits)
        tokens, log_probs = sample(logits, self.params, [] if self.params.greedy else self._uniforms(rows), scratch)
        for row, token, log_prob in zip(rows, tokens.tolist(), log_probs.tolist(), strict=True):
            row.tokens.append(token)
            row.log_probs.append(log_prob)
            ends = self.on_token is not None and self.on_token(row.prompt, token)
            if ends or token in self.params.stop_ids:
                row.finish_reason = "stop"
            elif len(row.tokens) == row.limit:
                row.finish_reason = "length"
        for slot in reversed(range(len(self.rows))):
            if self.rows[slot].finish_reason:
                self._retire(slot)

    def _buffers(self, hidden: Tensor, vocabulary: int) -> Tensor:
        """Room for logits and probabilities of every slot: [2, S, V]. The same at each step."""
        if self.buffers is None:
            dtype = torch.promote_types(hidden.dtype, torch.float32)
            self.buffers = hidden.new_empty(2, self.slots, vocabulary, dtype=dtype)
        return self.buffers

    def _uniforms(self, rows: Sequence[_Row]) -> list[float]:
        places = self.params.places or range(len(self.prompts))
        return [uniform(self.params.seed, places[row.prompt], len(row.tokens)) for row in rows]

    def _retire(self, slot: int) -> None:
        """Take a row out; the last one moves into its slot, so that live slots are the first ones."""
        row = self.rows[slot]
        self.done[row.prompt] = Completion(tuple(row.tokens), tuple(row.log_probs), row.finish_reason)
        last = self.rows.pop()
        if last is not row:
            self.rows[slot] = last
            self.cache.move(len(self.rows), slot, last.position)
