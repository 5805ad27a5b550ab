"""Which tokens end a completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import BadRow
from ptsdk.data.templates import render

CONTENT = "\ue000content\ue001"
"""Stands for a message: private-use characters, which no template has."""


def stop_ids(checkpoint: Checkpoint | None, tokenizer: Tokenizer, *, chat: bool = False) -> tuple[int, ...]:
    """The model's end tokens and the tokenizer's; in a chat also what its template ends a turn with,
    since a model that was trained on the template writes it, whatever the base's files say. A model
    from scratch (no checkpoint) has learned none of its own."""
    own = _listed(checkpoint.generation_config()) or _listed(checkpoint.config) if checkpoint else []
    ids = [*own, tokenizer.eos_id]
    if chat:
        ids.append(end_of_turn(tokenizer))
    return tuple(dict.fromkeys(token for token in ids if token is not None))


def _listed(config: Mapping[str, Any]) -> list[int]:
    """``eos_token_id``: an id, several, or none."""
    value = config.get("eos_token_id")
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The special token that the chat template puts behind what the assistant says.

    None where it puts something else there, or cannot render a question and its answer.
    """
    question, answer = {"role": "user", "content": "?"}, {"role": "assistant", "content": CONTENT}
    try:
        tail = render(tokenizer, [question, answer]).text.partition(CONTENT)[2]
    except BadRow:
        return None
    ids = tokenizer.encode(tail.lstrip(), special=False)
    is_special = bool(ids) and not tokenizer.decode(ids[:1]) and bool(tokenizer.decode(ids[:1], skip_special=False))
    return ids[0] if is_special else None
