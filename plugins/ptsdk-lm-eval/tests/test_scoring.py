"""Scores of continuations against plain log-probabilities, and how texts are put together."""

from __future__ import annotations

import pytest
import torch

from ptsdk.builtin.tiny import Tiny
from ptsdk.nn import linear_loss
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk_lm_eval.model import batches
from ptsdk_lm_eval.scoring import Text, score

TEXTS = [Text([5, 9, 11, 3, 8], 2), Text([7, 7], 1), Text(list(range(20, 40)), 19), Text([1, 2, 3], 0)]


@pytest.fixture
def model() -> CausalLM:
    torch.manual_seed(0)
    model = Tiny().build({"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def test_a_score_is_the_sum_over_the_continuation(model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", 3 * 64)  # three rows at a time
    for (value, greedy), (ids, continuation) in zip(score(model, TEXTS), TEXTS, strict=True):
        with torch.no_grad():
            logits = model.head().logits(model(Batch.pack([ids])))
        log_probs = torch.log_softmax(logits.double(), -1)
        places = range(len(ids) - continuation, len(ids))
        assert value == pytest.approx(sum(log_probs[i - 1, ids[i]].item() for i in places), rel=1e-5)
        assert greedy == all(logits[i - 1].argmax() == ids[i] for i in places)


def test_greedy_is_told(model: CausalLM) -> None:
    ids = [5, 9]
    with torch.no_grad():
        for _ in range(3):
            ids.append(int(model.head().logits(model(Batch.pack([ids])))[-1].argmax()))
    assert score(model, [Text(ids, 3), Text([*ids[:-1], (ids[-1] + 1) % 64], 3)])[0][1]
    assert not score(model, [Text([*ids[:-1], (ids[-1] + 1) % 64], 3)])[0][1]


@pytest.mark.parametrize("most", [1, 7, 100])
def test_batches_hold_every_text_once(most: int) -> None:
    lengths = [3, 9, 1, 4, 4, 2]
    found = list(batches(lengths, most))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or sum(lengths[i] for i in batch) <= most for batch in found)
