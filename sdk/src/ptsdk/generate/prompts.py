"""From text to the ids of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import BadRow
from ptsdk.data.templates import has_template, render
from ptsdk.errors import UserError


def plain_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """``text`` with the special tokens that the tokenizer puts in front. What it puts behind (EOS)
    is left away: it would end the text that is to be continued.

    Raises:
        UserError: no token is left of it.
    """
    ids, plain = tokenizer.encode(text), tokenizer.encode(text, special=False)
    if tokenizer.eos_id is not None and ids[-1:] == [tokenizer.eos_id] != plain[-1:]:
        ids = ids[:-1]
    if not ids:
        raise UserError("the prompt is empty", hint="give some text: this tokenizer puts no BOS token in front")
    return ids


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[dict[str, Any]]) -> list[int]:
    """A conversation up to where the assistant begins to write; the chat template alone decides.

    Raises:
        UserError: there is no template, or it refuses the conversation.
    """
    if not has_template(tokenizer):
        raise UserError(
            "the tokenizer has no chat template", hint="leave --chat away: the prompt is then taken as it is"
        )
    try:
        return tokenizer.encode(render(tokenizer, messages, add_generation_prompt=True).text, special=False)
    except BadRow as error:
        raise UserError(str(error)) from error
