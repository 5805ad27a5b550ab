"""Completions in columns, and log-probs at the temperature they were drawn at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ptsdk.checkpoint.tree import flatten_state, unflatten_state
from ptsdk.contracts.rollout import Completion
from ptsdk.data.order import share
from ptsdk.nn.batch import IGNORE, Batch
from ptsdk.nn.head import Head
from ptsdk_grpo.rollout import Rollout, Share, filler, written
from ptsdk_grpo.scoring import token_log_probs

PROMPTS = [(1, 2, 3), (1, 2, 3), (4,), (4,), (5, 6)]
WRITTEN = [(10,), (11, 12), (13, 14, 15), (16,), (17, 18)]


def rollout() -> Rollout:
    completions = [
        Completion(tokens, (0.0,) * len(tokens), "stop" if tokens[-1] % 2 else "length") for tokens in WRITTEN
    ]
    scores = torch.arange(10, dtype=torch.float64).view(5, 2)
    made = written(PROMPTS, completions, scores)
    return replace(made, advantages=torch.arange(5).double(), old=torch.arange(9.0), reference=-torch.arange(9.0))


def same(a: Rollout, b: Rollout) -> bool:
    return a.columns().keys() == b.columns().keys() and all(a.columns()[n].equal(b.columns()[n]) for n in a.columns())


def test_a_batch_supervises_what_was_written() -> None:
    batch = rollout().batch()
    assert batch.seq_lens == (4, 5, 4, 2, 4)
    assert batch.labels[batch.labels != IGNORE].tolist() == [token for tokens in WRITTEN for token in tokens]
    assert batch.tokens.tolist()[:9] == [1, 2, 3, 10, 1, 2, 3, 11, 12]
    assert batch.extras["completions"].tolist() == [0, 1, 1, 2, 2, 2, 3, 4, 4]
    assert batch.extras["finished"].tolist() == [False, False, True, False, False]
    assert batch.extras["old"].tolist() == list(range(9))
    assert batch.live


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 5])
def test_shares_joined_are_the_whole(world_size: int, micro_batch_size: int) -> None:
    whole = rollout()
    shares = []
    for rank in range(world_size):
        sizes = [len(part) for part in share([(i,) for i in range(len(whole))], micro_batch_size, rank, world_size)]
        start = rank * len(whole) // world_size
        own = whole.cut(start, start + sum(sizes))
        shares.append(Share.cut(own, sizes, filler((9,), 2)))
    assert len({len(one.parts) for one in shares}) == 1, "every process takes as many micro-batches"
    assert same(Rollout.join([part for one in shares for part in one.parts[: one.own]]), whole)
    for one in shares:
        assert [batch.live for batch in one.batches()] == [i < one.own for i in range(len(one.parts))]


def test_a_checkpoint_holds_it() -> None:
    for whole in (rollout(), replace(rollout(), old=None, reference=None)):
        tensors, tree = flatten_state(whole.columns())
        assert same(Rollout.restored(unflatten_state(tensors, tree)), whole)


def test_a_filler_runs_and_carries_no_weight() -> None:
    idle = Share.cut(rollout().cut(0, 0), [0], filler((7, 8), 2))
    (batch,) = idle.batches()
    assert not batch.live and batch.tokens.tolist() == [7, 8, 8] and (batch.labels != IGNORE).sum() == 1


class Plain(nn.Module):
    """An embedding and a head with everything that a head can have."""

    def __init__(self, softcap: float | None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table, self.weight = (torch.randn(20, 6, generator=generator, dtype=torch.float64) for _ in range(2))
        self.bias = torch.randn(20, generator=generator, dtype=torch.float64)
        self.softcap = softcap

    def head(self) -> Head:
        return Head(self.weight, self.bias, self.softcap)

    def forward(self, batch: Batch) -> Tensor:
        return self.table[batch.tokens]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_log_probs_are_those_of_the_cooled_logits(softcap: float | None, temperature: float) -> None:
    batch = rollout().batch()
    model = Plain(softcap)
    logits = model.table[batch.tokens] @ model.weight.T + model.bias
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    picked = batch.labels != IGNORE
    expected = (logits / temperature).log_softmax(1)[picked, batch.labels[picked]]
    found = token_log_probs(model, batch, temperature)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
