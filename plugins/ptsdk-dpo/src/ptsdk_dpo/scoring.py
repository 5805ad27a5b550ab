"""Log-probs of whole documents."""

from __future__ import annotations

import torch
from torch import Tensor

from ptsdk.nn.batch import IGNORE, Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.linear_loss import linear_log_probs


def score(model: CausalLM, batch: Batch) -> Tensor:
    """The sum of the log-probs of each document's supervised tokens.

    Args:
        model: with gradient, unless the caller switched it off.
        batch: B documents.

    Returns:
        float32 [B] (float64 from a float64 model), 0 for a document without a supervised token.
    """
    log_probs = linear_log_probs(model(batch), model.head(), batch.labels)
    return log_probs.new_zeros(len(batch.seq_lens)).index_add(0, _document_of_label(batch), log_probs)


def supervised_tokens(batch: Batch) -> Tensor:
    """int64 [B]: how many tokens ``score`` sums in each document."""
    return torch.bincount(_document_of_label(batch), minlength=len(batch.seq_lens))


def _document_of_label(batch: Batch) -> Tensor:
    """int64 [M]: the document of each supervised position, in order."""
    device = batch.labels.device
    lengths = torch.tensor(batch.seq_lens, device=device)
    documents = torch.arange(len(lengths), device=device)
    return documents.repeat_interleave(lengths, output_size=len(batch.labels))[batch.labels != IGNORE]
