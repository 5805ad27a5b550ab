"""Which tokens of a conversation carry loss: the assistant's, with their end-of-turn.

A template with ``{% generation %}`` blocks says so itself; for any other ``data.turns`` derives it
from the text. The text is then encoded once, and its characters are mapped to tokens.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Literal

from ptsdk.data.example import BadRow, Document
from ptsdk.data.templates import Message, render
from ptsdk.data.tokenizer import Tokenizer
from ptsdk.data.turns import Conversation, Span, check_asked, check_content

TrainOn = Literal["assistant", "last", "all"]


def mask_messages(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[Any] | None = None,
    train_on: TrainOn = "assistant",
    start: int = 0,
    **options: Any,
) -> Document:
    """The ids of a conversation, as its template alone decides them, and which carry loss.

    Args:
        tokenizer: gives the template; no BOS or EOS is added to what it renders.
        messages: validated messages. An assistant message with ``weight: 0`` or ``train: false``
            carries no loss; these two keys are not shown to the template.
        tools: JSON schemas for the template.
        train_on: every assistant message, the last one alone, or every token.
        start: messages before this index are prompt, whoever wrote them.
        options: further variables of the template.

    Raises:
        BadRow: no message carries loss, or the mask cannot be made exactly.
    """
    shown = [{k: v for k, v in message.items() if k not in ("weight", "train")} for message in messages]
    rendered = render(tokenizer, shown, tools, **options)
    if train_on == "all":
        spans = [(0, len(rendered.text))]
    elif rendered.spans is not None:
        spans = _by_generation(rendered.text, rendered.spans, shown, _trained(messages, train_on, start))
    else:
        trained = _trained(messages, train_on, start)
        spans = Conversation(tokenizer, shown, tools, options, rendered.text).spans(trained)
    check_asked(shown, rendered.text)
    return document(tokenizer, rendered.text, spans)


def document(tokenizer: Tokenizer, text: str, spans: Sequence[Span]) -> Document:
    """``text`` as ids without BOS or EOS; tokens that reach into one of ``spans`` carry loss.

    A token across the edge of a span is the assistant's: it cannot be predicted without writing
    the character inside.

    Raises:
        BadRow: no token carries loss.
    """
    try:
        ids, offsets = tokenizer.encode_with_offsets(text, special=False)
        supervised = _cover(offsets, spans)
    except NotImplementedError:
        ids = tokenizer.encode(text, special=False)
        supervised = _cover_by_prefixes(tokenizer, text, ids, spans)
    if not any(supervised):
        raise BadRow("no token of this row carries loss")
    return Document(tuple(ids), tuple(supervised))


def _cover(offsets: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """Which tokens reach into one of ``spans``; found by halving, since text is read in one direction."""
    supervised = [False] * len(offsets)
    for start, stop in spans:
        first = bisect_right(offsets, start, key=_end)
        last = bisect_left(offsets, stop, lo=first, key=_begin)
        supervised[first:last] = [True] * (last - first)
    return supervised


_begin: Callable[[Span], int] = itemgetter(0)


def _end(offsets: Span) -> int:
    """A byte or an added space may have no width; it belongs to the character that follows."""
    begin, end = offsets
    return end if end > begin else begin + 1


def _cover_by_prefixes(tokenizer: Tokenizer, text: str, ids: list[int], spans: Sequence[Span]) -> list[bool]:
    """For a tokenizer without offsets: an edge is where encoding the text before it stops."""

    def edge(at: int) -> int:
        before = tokenizer.encode(text[:at], special=False)
        if ids[: len(before)] != before:
            around = text[max(at - 5, 0) : at + 5]
            raise BadRow(f"this tokenizer tells no offsets, and joins {around!r} across an edge of the mask")
        return len(before)

    edges = [(edge(start), edge(stop)) for start, stop in spans]
    return [any(first <= k < last for first, last in edges) for k in range(len(ids))]


def _trained(messages: Sequence[Message], train_on: TrainOn, start: int) -> list[int]:
    """Indices of the messages that carry loss."""
    written = [i for i, message in enumerate(messages) if i >= start and message["role"] == "assistant"]
    if train_on == "last":
        written = written[-1:]
    trained = [i for i in written if _weight(messages[i]) and messages[i].get("train", True)]
    if not trained:
        raise BadRow("no assistant message of this row carries loss")
    return trained


def _weight(message: Message) -> bool:
    weight = message.get("weight", 1)
    if weight not in (0, 1):
        raise BadRow(f"the weight of a message is 0 or 1, not {weight!r}")
    return bool(weight)


def _by_generation(text: str, spans: Sequence[Span], messages: Sequence[Message], trained: Sequence[int]) -> list[Span]:
    """The template's own spans, those of the trained messages alone."""
    kept = [span for span in spans if span[0] < span[1]]
    written = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    merged = _merge(kept)
    if len(merged) == len(written):
        for i, (start, stop) in zip(written, merged, strict=True):
            if i in trained:
                check_content(messages, i, "", text[start:stop])
        return [span for i, span in zip(written, merged, strict=True) if i in trained]
    if list(trained) != written:
        raise BadRow(
            f"the template has {len(merged)} generation blocks for {len(written)} assistant messages, "
            "so single messages cannot be left out of the loss"
        )
    for i in trained:
        check_content(messages, i, "", "".join(text[start:stop] for start, stop in merged))
    return merged


def _merge(spans: Sequence[Span]) -> list[Span]:
    """Spans that touch become one: a template may write a turn in several blocks."""
    merged: list[Span] = []
    for start, stop in spans:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged
