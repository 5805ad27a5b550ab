"""Completions of a step, in columns: cut into micro-batches, joined for a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import torch
from torch import Tensor

from ptsdk.contracts.rollout import Completion
from ptsdk.nn.batch import Batch

OLD, REFERENCE, ADVANTAGES, COMPLETIONS = "old", "reference", "advantages", "completions"
SCORES, SPREADS, FINISHED = "scores", "spreads", "finished"
"""Names of a batch's extras."""


@dataclass(frozen=True)
class Rollout:
    """n completions with their prompts, on the host: N tokens in all, T of them in completions.

    Attributes:
        tokens: int64 [N], prompt, completion, prompt, completion, ...
        prompts: int64 [n], tokens of each prompt.
        lengths: int64 [n], tokens of each completion.
        rows: int64 [n], the example that each prompt is of.
        finished: bool [n], whether it ended by itself, not at the limit.
        scores: float64 [n, R], what each reward says of it.
        spreads: float64 [n], the standard deviation of the rewards of its group.
        advantages: float64 [n].
        old: [T], log-probs under the policy that wrote them; None where nothing learns from them twice.
        reference: [T], log-probs under the reference, None where there is none.
    """

    tokens: Tensor
    prompts: Tensor
    lengths: Tensor
    rows: Tensor
    finished: Tensor
    scores: Tensor
    spreads: Tensor
    advantages: Tensor
    old: Tensor | None = None
    reference: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def cut(self, start: int, stop: int) -> Rollout:
        """The completions number ``start`` to ``stop``."""
        tokens = _ends(self.prompts + self.lengths)
        sampled = _ends(self.lengths)
        cut = {name: column[start:stop] for name, column in self.columns().items()}
        cut["tokens"] = self.tokens[tokens[start] : tokens[stop]]
        for name in cut.keys() & {OLD, REFERENCE}:
            cut[name] = self.columns()[name][sampled[start] : sampled[stop]]
        return Rollout(**cut)

    def batch(self) -> Batch:
        """What a model reads: B = n documents, loss on the completions."""
        documents = [part.tolist() for part in torch.split(self.tokens, (self.prompts + self.lengths).tolist())]
        supervised = [
            [False] * prompt + [True] * length
            for prompt, length in zip(self.prompts.tolist(), self.lengths.tolist(), strict=True)
        ]
        kept = (SCORES, SPREADS, FINISHED, ADVANTAGES, OLD, REFERENCE)
        extras = {name: column for name, column in self.columns().items() if name in kept}
        extras[COMPLETIONS] = torch.arange(len(self)).repeat_interleave(self.lengths)
        return replace(Batch.pack(documents, supervised, extras), rows=tuple(self.rows.tolist()))

    def columns(self) -> dict[str, Tensor]:
        """Every column there is, by name: what a checkpoint keeps."""
        columns = {column.name: getattr(self, column.name) for column in fields(self)}
        return {name: column for name, column in columns.items() if column is not None}

    @classmethod
    def join(cls, parts: Sequence[Rollout]) -> Rollout:
        """Several, one after the other; all have the same columns."""
        columns = [part.columns() for part in parts]
        return cls(**{name: torch.cat([column[name] for column in columns]) for name in columns[0]})

    @classmethod
    def restored(cls, columns: Mapping[str, Tensor]) -> Rollout:
        """The inverse of ``columns``; nothing of a memory-mapped file is kept."""
        return cls(**{name: column.clone() for name, column in columns.items()})


def written(
    prompts: Sequence[Sequence[int]], completions: Sequence[Completion], scores: Tensor, rows: Sequence[int] = ()
) -> Rollout:
    """Prompts, of the examples ``rows``, and what was written after them; nothing is known of groups yet."""
    pairs = zip(prompts, completions, strict=True)
    tokens = [token for prompt, completion in pairs for token in (*prompt, *completion.tokens)]
    return Rollout(
        tokens=torch.tensor(tokens, dtype=torch.int64),
        prompts=torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int64),
        lengths=torch.tensor([len(completion.tokens) for completion in completions], dtype=torch.int64),
        rows=torch.tensor(rows or [0] * len(prompts), dtype=torch.int64),
        finished=torch.tensor([completion.finish_reason == "stop" for completion in completions], dtype=torch.bool),
        scores=scores,
        spreads=torch.zeros(len(prompts), dtype=torch.float64),
        advantages=torch.zeros(len(prompts), dtype=torch.float64),
    )


def filler(prompt: Sequence[int], rewards: int) -> Rollout:
    """One completion of one token that nobody wrote, for a process that has none."""
    made_up = Completion((prompt[-1],), (0.0,), "stop")
    return written([prompt], [made_up], torch.zeros(1, rewards, dtype=torch.float64))


@dataclass(frozen=True)
class Share:
    """A process's part of a rollout.

    Attributes:
        parts: its micro-batches, as many as every other process has.
        own: how many of them hold completions; the rest are fillers.
        epochs: optimizer steps that have learned from them.
    """

    parts: tuple[Rollout, ...]
    own: int
    epochs: int = 0

    @classmethod
    def cut(cls, rollout: Rollout, sizes: Sequence[int], idle: Rollout, epochs: int = 0) -> Share:
        """The completions of one process in micro-batches of so many; ``idle`` where it has none."""
        ends = _ends(torch.tensor(sizes))
        parts = [rollout.cut(a, b) if a < b else idle for a, b in pairwise(ends)]
        return cls(tuple(parts), sum(map(bool, sizes)), epochs)

    def batches(self) -> list[Batch]:
        """As a model reads them."""
        return [replace(part.batch(), live=i < self.own) for i, part in enumerate(self.parts)]


def _ends(lengths: Tensor) -> list[int]:
    """Where each of some pieces begins, and where the last ends."""
    return [0, *lengths.cumsum(0).tolist()]
