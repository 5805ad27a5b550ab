"""How likely continuations are, of texts laid end to end.

N tokens, M of them in continuations, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ptsdk.nn.batch import IGNORE, Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.elementwise import softmax_
from ptsdk.nn.head import Head, logits_of
from ptsdk.nn.linear_loss import logits_buffer, row_chunks


class Text(NamedTuple):
    """Token ids, and how many of them, at the end, are the continuation."""

    ids: list[int]
    continuation: int


@torch.inference_mode()
def score(model: CausalLM, texts: Sequence[Text]) -> list[tuple[float, bool]]:
    """For each text the log-probability of its continuation, and whether greedy decoding writes it."""
    supervised = [[i >= len(text.ids) - text.continuation for i in range(len(text.ids))] for text in texts]
    batch = Batch.pack([text.ids for text in texts], supervised).to(next(model.parameters()).device)
    rows = (batch.labels != IGNORE).nonzero().squeeze(1)
    log_probs, likeliest = score_rows(model(batch)[rows], model.head(), batch.labels[rows])
    sizes = [sum(flags[1:]) for flags in supervised]
    parts = zip(torch.split(log_probs, sizes), torch.split(likeliest, sizes), strict=True)
    return [(values.double().sum().item(), bool(hits.all())) for values, hits in parts]


def score_rows(hidden: Tensor, head: Head, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row [M, D] the log-probability of its label, and whether no token is likelier: [M] each."""
    buffer = logits_buffer(hidden, head.weight)
    log_probs = buffer.new_empty(len(labels))
    likeliest = torch.empty_like(labels, dtype=torch.bool)
    for part in row_chunks(len(labels), len(head.weight)):
        logits = logits_of(hidden[part], head, buffer)
        likeliest[part] = logits.argmax(1) == labels[part]
        log_probs[part] = softmax_(logits, labels[part])
    return log_probs, likeliest
