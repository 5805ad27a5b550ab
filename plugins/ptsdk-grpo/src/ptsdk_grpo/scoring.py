"""Log-probs of sampled tokens, under the distribution that they were drawn from."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.head import Head
from ptsdk.nn.linear_loss import linear_log_probs


def token_log_probs(model: CausalLM, batch: Batch, temperature: float) -> Tensor:
    """``log softmax(logits / temperature)[token]`` of the supervised tokens, in order.

    Args:
        model: with gradient, unless the caller switched it off.
        batch: prompts and completions; the completions' tokens are supervised.
        temperature: what the logits were divided by when the tokens were drawn.

    Returns:
        float32 [T] (float64 from a float64 model).
    """
    return linear_log_probs(*tempered(model(batch), model.head(), temperature), batch.labels)


def tempered(hidden_states: Tensor, head: Head, temperature: float) -> tuple[Tensor, Head]:
    """Hidden states [N, D] and head of ``logits / temperature``, so that no logit is made for it.

    ``softcap tanh(z / softcap)`` over the temperature is the same with both divided by it.
    """
    if temperature == 1:
        return hidden_states, head
    bias = None if head.bias is None else head.bias / temperature
    softcap = None if head.softcap is None else head.softcap / temperature
    return hidden_states / temperature, replace(head, bias=bias, softcap=softcap)
