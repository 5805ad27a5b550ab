"""Which tokens of a conversation carry loss: the assistant's, with their end-of-turn.

A template with ``{% generation %}`` blocks says so itself. For any other the places are derived
from the text alone: where the prompt ends (the rendering up to a message, with the header of the
assistant's turn) and where the turn ends. Where a template renders a message differently once it
is history (thinking stripped from earlier turns), the message is found by rendering the
conversation again with another content in its place: what differs is the message. Everything found is
checked against the content of the row; a mask that cannot be made exactly is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import BadRow, Document
from ptsdk.data.templates import Message, render

TrainOn = Literal["assistant", "last", "all"]
Span = tuple[int, int]

MARK = "\ue000ptsdk\ue001"
"""Stands in for a message: private-use characters at both ends, so that no template text matches them."""

ADVICE = "give the tokenizer a chat template with {% generation %} around what the assistant writes"


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
        return document(tokenizer, rendered.text, [(0, len(rendered.text))])
    trained = _trained(messages, train_on, start)
    if rendered.spans is not None:
        spans = _by_generation(rendered.text, rendered.spans, shown, trained)
    else:
        conversation = _Conversation(tokenizer, shown, tools, options, rendered.text)
        spans = [conversation.span(i) for i in trained]
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
    # A byte or an added space may have no width; it belongs to the character that follows.
    wide = [(begin, max(end, begin + 1)) for begin, end in offsets]
    supervised = [False] * len(wide)
    for start, stop in spans:
        inside = [k for k, (begin, end) in enumerate(wide) if begin < stop and end > start]
        for k in range(inside[0], inside[-1] + 1) if inside else ():
            supervised[k] = True
    return supervised


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
                _check_content(messages, i, text[start:stop])
        return [span for i, span in zip(written, merged, strict=True) if i in trained]
    if list(trained) != written:
        raise BadRow(
            f"the template has {len(merged)} generation blocks for {len(written)} assistant messages, "
            "so single messages cannot be left out of the loss"
        )
    for i in trained:
        _check_content(messages, i, "".join(text[start:stop] for start, stop in merged))
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


@dataclass(frozen=True)
class _Turn:
    """How the template writes a turn of the assistant right after some messages.

    ``head``: everything before the content; ``prompt``: how many characters of it are there
    before the assistant writes; ``tail``: everything after the content.
    """

    head: str
    prompt: int
    tail: str


@dataclass(frozen=True)
class _Conversation:
    """One conversation under a template without generation blocks; ``text`` is its rendering."""

    tokenizer: Tokenizer
    messages: Sequence[Message]
    tools: Sequence[Any] | None
    options: Mapping[str, Any]
    text: str

    def span(self, index: int) -> Span:
        """The characters of assistant message ``index``, with its end-of-turn.

        Raises:
            BadRow: they cannot be told from the template's.
        """
        head, tail = self._around_mark([*self.messages[:index], MARKED], index)
        prompt = self._render(self.messages[:index], prompt=True)
        turn = _Turn(head, shared(prompt, head), tail)
        place = self._by_difference(index, turn) or self._by_prefix(index, turn)
        if place is None:
            raise BadRow(f"the chat template writes `messages[{index}]` so that it cannot be masked exactly; {ADVICE}")
        start, stop = place
        _check_content(self.messages, index, self.text[start:stop])
        end = _end_of_turn(self.tokenizer, tail)
        return start, stop + len(end) if self.text.startswith(end, stop) else stop

    def _render(self, messages: Sequence[Message], prompt: bool = False) -> str:
        return render(self.tokenizer, messages, self.tools, add_generation_prompt=prompt, **self.options).text

    def _around_mark(self, messages: Sequence[Message], index: int) -> tuple[str, str]:
        head, found, tail = self._render(messages).partition(MARK)
        if not found or MARK in tail:
            raise BadRow(f"the chat template does not write the content of `messages[{index}]` once; {ADVICE}")
        return head, tail

    def _by_difference(self, index: int, turn: _Turn) -> Span | None:
        """What changes when another message takes the place of this one."""
        others = [*self.messages[:index], MARKED, *self.messages[index + 1 :]]
        try:
            head, tail = self._around_mark(others, index)
        except BadRow:  # a tool's answer may not follow an answer that called none
            return None
        start = self._start(index, head, turn)
        same = shared(head, self.text)
        stop = len(self.text) - len(tail)
        if start is None or start > same or stop < same or not self.text.endswith(tail):
            return None
        return start, stop

    def _start(self, index: int, head: str, turn: _Turn) -> int | None:
        """Where after ``head``'s beginning the assistant starts to write."""
        if head == turn.head:
            return turn.prompt
        # What came before is rendered otherwise in the whole conversation; look for the header at its end.
        begin = shared(self._render(self.messages[:index]), turn.head)
        header, written = turn.head[begin : turn.prompt], turn.head[turn.prompt :]
        if header and head.endswith(header + written):
            return len(head) - len(written)
        sizes = (size for size in range(len(header), 0, -1) if header[:size].strip() and head.endswith(header[:size]))
        return len(head) if next(sizes, None) else None

    def _by_prefix(self, index: int, turn: _Turn) -> Span | None:
        """What the conversation up to this message has more than its prompt."""
        upto = self._render(self.messages[: index + 1])
        stop = len(upto) - len(turn.tail)
        consistent = upto.endswith(turn.tail) and self.text.startswith(upto[:stop])
        if not consistent or not self.text.startswith(turn.head[: turn.prompt]):
            return None
        return (turn.prompt, stop) if turn.prompt <= stop else None


MARKED = {"role": "assistant", "content": MARK}


def _end_of_turn(tokenizer: Tokenizer, tail: str) -> str:
    """The part of ``tail``, which follows the last content, that the assistant writes: up to the
    first special token, or to the last visible character where there is none."""
    try:
        ids, offsets = tokenizer.encode_with_offsets(tail, special=False)
    except NotImplementedError:
        return tail.rstrip()
    for token_id, (_, end) in zip(ids, offsets, strict=True):
        if not tokenizer.decode([token_id], skip_special=True) and tokenizer.decode([token_id], skip_special=False):
            return tail[:end]
    return tail.rstrip()


def _check_content(messages: Sequence[Message], index: int, written: str) -> None:
    """Everything the row has the assistant say is in ``written``, white space aside; only the
    thinking of a turn that a later question has made history may be gone.

    Raises:
        BadRow: the template loses something.
    """
    message, written = messages[index], _squash(written)
    history = any(later["role"] == "user" for later in messages[index + 1 :])
    content = _squash(_text(message["content"]))
    thought = content.removesuffix(written) if written else ""
    stripped = history and thought != content and thought.endswith((">", "]"))
    wanted = [] if stripped else [content]
    if not history:
        wanted.append(_squash(str(message.get("reasoning_content") or "")))
    calls = message.get("tool_calls") or ()
    wanted += [_squash(str(call.get("function", call).get("name", ""))) for call in calls]
    if lost := next((part for part in wanted if part not in written), None):
        raise BadRow(f"the chat template drops part of `messages[{index}]` ({lost[:40]!r}); {ADVICE}")


def shared(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items two texts or lists have in common at the beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def _squash(text: str) -> str:
    return "".join(text.split())


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
