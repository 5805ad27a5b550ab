"""From logits to a token: what may be sampled, and a draw that depends on nothing but its place.

B rows, V vocabulary. Filters act in the order of transformers: temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ptsdk.errors import Problem, RunError, UserError

FIRST_LOOK = 256
"""How many of the likeliest tokens are looked at before a nucleus is taken to be larger."""
COLDEST = 1e-6
"""Below, logits divided by the temperature overflow."""
BLOCK = 512
"""Tokens whose probabilities are summed before one of them is looked for."""


@dataclass(frozen=True)
class SamplingParams:
    """How completions are drawn.

    Args:
        max_new_tokens: at most so many, the stop token included.
        temperature: what logits are divided by; 0 takes the likeliest token.
        top_k: keep the k likeliest tokens (those that tie with the last one too).
        top_p: keep the likeliest tokens that reach this mass together (arXiv:1904.09751).
        min_p: keep tokens at least this fraction as likely as the likeliest (arXiv:2407.01082).
        seed: with a prompt's place and the step it decides every draw.
        stop_ids: tokens that end a completion.
        places: the place of each prompt, where the prompts are part of a larger batch (one
            process's share); by default 0, 1, ...

    Raises:
        UserError: a value out of range; all are named.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 0
    stop_ids: tuple[int, ...] = ()
    places: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise UserError(*problems)

    def _problems(self) -> Iterable[Problem]:
        checks = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (
                self.greedy or COLDEST <= self.temperature < math.inf,
                f"0 (greedy), or at least {COLDEST}",
            ),
            "top_k": (self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p is None or 0 <= self.min_p <= 1, "from 0 to 1"),
        }
        for name, (sound, expected) in checks.items():
            if not sound:
                yield Problem(f"{name} is {getattr(self, name)}", hint=f"it must be {expected}", path=name)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature == 0


def sample(
    logits: Tensor, params: SamplingParams, uniforms: list[float], scratch: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token a row, and its log-probability under the policy itself (temperature 1, no filter).

    Args:
        logits: [B, V], float32 or float64.
        params: temperature and filters.
        uniforms: one number in [0, 1) a row, which picks the token; not looked at when greedy.
        scratch: [B, V], overwritten: a caller of many steps keeps it, since fresh memory costs more than
            what is computed in it.

    Returns:
        int64 [B], and [B] in the dtype of ``logits``.

    Raises:
        RunError: a logit is nan or infinite.
    """
    probs = torch.softmax(logits, -1, out=torch.empty_like(logits) if scratch is None else scratch)
    normaliser = logits.amax(-1) - probs.amax(-1).log()  # log sum exp
    if not normaliser.isfinite().all():
        raise RunError("the model's logits are not finite, so nothing can be sampled: its weights diverged or overflow")
    if params.greedy:
        tokens = logits.argmax(-1)
    else:
        if params.temperature != 1:
            torch.softmax(torch.div(logits, params.temperature, out=probs), -1, out=probs)
        probs = keep_likely(probs, params.top_k, params.top_p, params.min_p)
        tokens = pick(probs, torch.tensor(uniforms, dtype=torch.float64, device=logits.device))
    return tokens, logits.gather(1, tokens[:, None]).squeeze(1) - normaliser


def keep_likely(
    probs: Tensor, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> Tensor:
    """``probs`` [B, V] with 0 in place of what the filters leave out; not normalised again.

    Tokens as likely as the last that is kept are kept, so that no order of sorting matters.
    """
    least = [probs.new_zeros(len(probs), 1)]
    if top_k is not None and top_k < probs.shape[-1]:
        kept = probs.topk(top_k).values
        least.append(kept[:, -1:])
        if top_p is not None and top_p < 1:
            least.append(_nucleus(kept, top_p * kept.sum(-1, keepdim=True)))
    elif top_p is not None and top_p < 1:
        least.append(_nucleus_of_all(probs, top_p))
    if min_p is not None:
        least.append(probs.amax(-1, keepdim=True) * min_p)
    if len(least) == 1:
        return probs
    return probs.masked_fill(probs < torch.cat(least, dim=1).amax(1, keepdim=True), 0)


def _nucleus(descending: Tensor, target: Tensor) -> Tensor:
    """[B, 1]: the least probability in the smallest set of the mass ``target`` [B, 1]."""
    before = descending.cumsum(-1) - descending
    return descending.masked_fill(before >= target, math.inf).amin(-1, keepdim=True)


def _nucleus_of_all(probs: Tensor, top_p: float) -> Tensor:
    """The same of all tokens, without sorting them: that costs more than a small model."""
    target = top_p * probs.sum(-1, keepdim=True)
    descending = probs.topk(min(FIRST_LOOK, probs.shape[-1])).values
    least = _nucleus(descending, target)
    short = (descending.sum(-1, keepdim=True) < target).squeeze(1)
    if short.any():
        least[short] = _bisected(probs[short], target[short])
    return least


def _bisected(probs: Tensor, target: Tensor) -> Tensor:
    """[B, 1]: the largest probability such that those from it up have the mass ``target`` [B, 1].

    Floats that are not negative are in the order of their bits, so halving those finds it exactly.
    """
    bits = torch.int64 if probs.dtype == torch.float64 else torch.int32
    most = probs.amax(-1, keepdim=True).view(bits) + 1
    least = torch.zeros_like(most)
    while (most - least > 1).any():
        middle = least + (most - least) // 2
        enough = probs.where(probs >= middle.view(probs.dtype), 0).sum(-1, keepdim=True) >= target
        least, most = torch.where(enough, middle, least), torch.where(enough, most, middle)
    return least.view(probs.dtype)


def pick(probs: Tensor, uniforms: Tensor) -> Tensor:
    """The token at which the cumulated probability passes ``uniforms``: inverse transform sampling.

    Args:
        probs: [B, V], not negative, of any positive sum.
        uniforms: float64 [B], in [0, 1).

    Returns:
        int64 [B]; never a token of probability 0.
    """
    whole = probs.shape[-1] // BLOCK * BLOCK
    sums = probs[:, :whole].view(len(probs), -1, BLOCK).sum(-1)
    if whole < probs.shape[-1]:  # padding would copy everything
        sums = torch.cat((sums, probs[:, whole:].sum(-1, keepdim=True)), dim=1)
    block, rest = _invert(sums, uniforms)
    places = block[:, None] * BLOCK + torch.arange(BLOCK, device=probs.device)
    there = places < probs.shape[-1]
    inside, _ = _invert(probs.gather(1, places.where(there, 0)).where(there, 0), rest)
    return block * BLOCK + inside


def _invert(weights: Tensor, fractions: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row [B, n] passes a fraction of its sum, and how far into that entry, in [0, 1]."""
    cumulated = weights.double().cumsum(-1)
    total = cumulated[:, -1:]
    target = torch.minimum(fractions[:, None] * total, total.nextafter(torch.zeros_like(total)))
    index = torch.searchsorted(cumulated, target, right=True)
    size = weights.double().gather(1, index)
    rest = (target - (cumulated.gather(1, index) - size)) / size
    return index.squeeze(1), rest.squeeze(1).clamp(0, 1)


def uniform(seed: int, place: int, step: int) -> float:
    """The number in [0, 1), of 53 bits, that belongs to a step of a prompt under a seed."""
    digest = hashlib.blake2b(f"{seed}/{place}/{step}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53
