"""A model of ptsdk as lm-evaluation-harness asks for one.

The harness asks three things: how likely a continuation is, how likely a whole text is, and what a
model writes. The answers are those of its own ``hf`` model, computed without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from ptsdk.data.templates import render
from ptsdk.data.tokenizer import Tokenizer
from ptsdk.errors import Problem, UserError
from ptsdk.generate.engine import generate
from ptsdk.generate.sampling import SamplingParams
from ptsdk.nn.causal_lm import CausalLM
from ptsdk_lm_eval.scoring import Text, score

LONGEST = 2048
"""Tokens of a text where config.json sets no limit, as in the harness."""
UNDERSTOOD = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "min_p"}
"""What a task may ask of sampling."""


class PtsdkLM(TemplateLM):  # type: ignore[misc]  # the harness is not typed
    """A causal model and its tokenizer.

    Args:
        model: in eval mode.
        tokenizer: its own.
        stop_ids: tokens that end what it writes.
        name: what results call it.
        batch_tokens: tokens that are read at a time (or one longer text).
        slots: completions that grow at a time.

    Raises:
        UserError: the tokenizer has neither BOS nor EOS.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        stop_ids: tuple[int, ...],
        name: str,
        batch_tokens: int = 4096,
        slots: int = 64,
    ) -> None:
        super().__init__()
        first = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
        if first is None:
            raise UserError("the tokenizer has neither a BOS nor an EOS token", hint="the harness puts one first")
        self.model, self.own, self.stop_ids, self.name = model, tokenizer, stop_ids, name
        self.prefix, self.batch_tokens, self.slots = first, batch_tokens, slots
        limit = model.config.get("max_position_embeddings")
        self.max_length = limit if isinstance(limit, int) else LONGEST

    @property
    def tokenizer_name(self) -> str:
        """What caches of requests go by."""
        return self.name

    @property
    def eot_token_id(self) -> int:
        """Ends a text."""
        return self.prefix if self.own.eos_id is None else self.own.eos_id

    @property
    def prefix_token_id(self) -> int:
        """Stands before a text without a context: BOS, or EOS where there is none."""
        return self.prefix

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of ``string``; BOS is not put before one that begins with it."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.own.decode([self.prefix], skip_special=False))
        return self.own.encode(string, special=add_special_tokens)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the template, which the harness hashes."""
        return self.own.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text."""
        return render(self.own, chat_history, add_generation_prompt=add_generation_prompt).text

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """The log-probability of each continuation, and whether greedy decoding writes it. Of a text that
        is too long the beginning is left out."""
        texts = [Text((context + rest)[-self.max_length - 1 :], len(rest)) for _, context, rest in requests]
        results: dict[int, tuple[float, bool]] = {}
        for indices in batches([len(text.ids) for text in texts], self.batch_tokens):
            results |= zip(indices, score(self.model, [texts[i] for i in indices]), strict=True)
        return [results[i] for i in range(len(texts))]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text, read in windows of the model's length."""
        windows = [self._windows(request.args[0]) for request in requests]
        values = self._loglikelihood_tokens([window for group in windows for window in group])
        bounds = accumulate((len(group) for group in windows), initial=0)
        return [sum(value for value, _ in values[start:end]) for start, end in pairwise(bounds)]

    def _windows(self, text: str) -> list[tuple[None, list[int], list[int]]]:
        windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
        return [(None, *make_disjoint_window(window)) for window in windows]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to the first of the strings that end it."""
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(index)
        texts: dict[int, str] = {}
        for indices in groups.values():
            options = requests[indices[0]].args[1]
            texts |= zip(indices, self._written([requests[i].args[0] for i in indices], options), strict=True)
        return [texts[i] for i in range(len(requests))]

    def _written(self, contexts: list[str], options: dict[str, Any]) -> Iterator[str]:
        options = normalize_gen_kwargs(dict(options))
        if unknown := options.keys() - UNDERSTOOD:
            raise UserError(Problem(f"a task asks for {', '.join(sorted(unknown))}", "ptsdk eval cannot generate so"))
        eos = self.own.decode([self.eot_token_id], skip_special=False)
        until = handle_stop_sequences(options["until"], eos)
        filters = {name: options[name] for name in ("top_k", "top_p", "min_p") if options.get(name)}
        most, temperature = options["max_gen_toks"], options["temperature"] if options["do_sample"] else 0.0
        params = SamplingParams(most, temperature, stop_ids=self.stop_ids, **filters)
        prompts = [self.tok_encode(context)[-max(1, self.max_length - most) :] for context in contexts]
        written = [""] * len(prompts)
        tokens: list[list[int]] = [[] for _ in prompts]

        def ends(index: int, token: int) -> bool:
            """Whether one of the strings has been written."""
            tokens[index].append(token)
            written[index] = self.own.decode(tokens[index], skip_special=False)
            return any(term in written[index] for term in until if term)

        for completion, ids in zip(generate(self.model, prompts, params, self.slots, ends), tokens, strict=True):
            ids = ids[:-1] if completion.finish_reason == "stop" and ids[-1] in self.stop_ids else ids
            yield postprocess_generated_text(self.own.decode(ids), until, None)


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of ``lengths``, the longest first, in batches that add up to ``most`` (or of one longer)."""
    batch: list[int] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and total + lengths[index] > most:
            yield batch
            batch, total = [], 0
        batch.append(index)
        total += lengths[index]
    if batch:
        yield batch
