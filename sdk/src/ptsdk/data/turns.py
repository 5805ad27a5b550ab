"""Where in a rendered conversation the assistant's turns are, for a template that does not say so.

The shortest conversation shows what the template puts around an answer. A message is then what
changes in the text when another one takes its place, which finds it even where the template
renders history otherwise (thinking stripped from earlier turns); or else what the conversation up
to it has more than its prompt. Everything found is checked against the content of the row; what
cannot be told exactly is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ptsdk.data.example import BadRow
from ptsdk.data.templates import Message, render
from ptsdk.data.tokenizer import Tokenizer

Span = tuple[int, int]

MARK, QUESTION = "\ue000answer\ue001", "\ue000question\ue001"
"""Stand in for messages: private-use characters at both ends, so that no template text matches them."""

CLOSING = re.compile(r"</[^<>]+>|\[/[^\[\]]+\]")
ADVICE = "give the tokenizer a chat template with {% generation %} around what the assistant writes"


@dataclass(frozen=True)
class _Turn:
    """How a template writes an answer, from the end of the question's content on.

    ``header``: what the prompt already holds; ``extra``: what the prompt holds beyond what precedes
    an answer (``<think>``); ``opening``: what comes between header and content (an empty thought);
    ``tail``: what follows the content.
    """

    header: str
    extra: str
    opening: str
    tail: str


@dataclass(frozen=True)
class Conversation:
    """One conversation under a template without generation blocks; ``text`` is its rendering."""

    tokenizer: Tokenizer
    messages: Sequence[Message]
    tools: Sequence[Any] | None
    options: Mapping[str, Any]
    text: str

    def spans(self, indices: Sequence[int]) -> list[Span]:
        """The characters of some assistant messages, each with its end-of-turn.

        Raises:
            BadRow: they cannot be told from the template's.
        """
        turn = self._turn()
        return [self._span(index, turn) for index in indices]

    def _turn(self) -> _Turn:
        """Learnt from the shortest conversation, so that nothing but the template has a part in it."""
        ask, reply = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": MARK}
        prompt = _around(self._render([ask], prompt=True), QUESTION)[1]
        head, tail = _around(_around(self._render([ask, reply]), QUESTION)[1], MARK)
        size = shared(prompt, head)
        return _Turn(head[:size], prompt[size:], head[size:], tail)

    def _span(self, index: int, turn: _Turn) -> Span:
        place = self._by_difference(index, turn) or self._by_prefix(index, turn)
        if place is None:
            raise BadRow(f"the chat template writes `messages[{index}]` so that it cannot be masked exactly; {ADVICE}")
        start, stop = place
        if self.text.startswith(turn.extra, start):
            start += len(turn.extra)
        check_content(self.messages, index, self.text[max(start - 64, 0) : start], self.text[start:stop])
        return start, stop + len(self._end_of_turn(index, turn.tail, stop))

    def _render(self, messages: Sequence[Message], prompt: bool = False) -> str:
        return render(self.tokenizer, messages, self.tools, add_generation_prompt=prompt, **self.options).text

    def _by_difference(self, index: int, turn: _Turn) -> Span | None:
        """What changes when another message takes the place of this one."""
        mark = {"role": "assistant", "content": MARK}
        try:
            head, tail = _around(self._render([*self.messages[:index], mark, *self.messages[index + 1 :]]), MARK)
        except BadRow:  # a tool's result may not follow an answer that called none
            return None
        start = _start(head, turn)
        same, stop = shared(head, self.text), len(self.text) - len(tail)
        exact = start is not None and start <= same <= stop and self.text.endswith(tail)
        if start is None or not exact or not _in_order(self.messages[index + 1 :], tail):
            return None
        return start, stop

    def _by_prefix(self, index: int, turn: _Turn) -> Span | None:
        """What the conversation up to this message has more than its prompt."""
        try:
            prompt, upto = self._render(self.messages[:index], prompt=True), self._render(self.messages[: index + 1])
        except BadRow:  # many templates cannot render a conversation that is empty
            return None
        stop = len(upto) - len(turn.tail)
        consistent = upto.endswith(turn.tail) and upto[:stop].startswith(prompt)
        return (len(prompt), stop) if consistent and self.text.startswith(upto[:stop]) else None

    def _end_of_turn(self, index: int, tail: str, stop: int) -> str:
        """How much of what follows the content the assistant writes: ``tail`` up to its first
        special token, or to its last visible character, as far as the conversation agrees."""
        end = expected = tail[: _first_special(self.tokenizer, tail)].rstrip()
        while not self.text.startswith(end, stop):
            end = re.sub(r"\s*\S+\s*$", "", end)
        rest = self.text[stop:].lstrip()
        if expected and not end and _begins_special(self.tokenizer, rest):
            raise BadRow(f"the chat template ends `messages[{index}]` otherwise than a last message; {ADVICE}")
        return end


def _start(head: str, turn: _Turn) -> int | None:
    """Where the assistant begins to write in ``head``, which ends where its content begins."""
    if head.endswith(turn.header + turn.opening):
        return len(head) - len(turn.opening)
    # As history, a turn may lack the opening, and the part of the header that opens a thought.
    sizes = range(len(turn.header), len(turn.header) // 2, -1)
    return len(head) if any(head.endswith(turn.header[:size]) for size in sizes) else None


def _around(text: str, mark: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found or mark in after:
        raise BadRow(f"the chat template does not write the content of every message once; {ADVICE}")
    return before, after


def _in_order(messages: Sequence[Message], text: str) -> bool:
    """Whether ``text`` says all that ``messages`` say, thinking aside: else what it lacks would
    be taken for the message before."""
    rest = _squash(text)
    for content in (_squash(_text(message)) for message in messages):
        part = content if content in rest else _answer(content)
        _, found, rest = rest.partition(part) if part else ("", "-", rest)
        if not found:
            return False
    return True


def _first_special(tokenizer: Tokenizer, text: str) -> int:
    """Where the first special token in ``text`` ends; the length of ``text`` where there is none."""
    try:
        ids, offsets = tokenizer.encode_with_offsets(text, special=False)
    except NotImplementedError:
        return len(text)
    ends = (end for token_id, (_, end) in zip(ids, offsets, strict=True) if _is_special(tokenizer, token_id))
    return next(ends, len(text))


def _begins_special(tokenizer: Tokenizer, text: str) -> bool:
    ids = tokenizer.encode(text[:64], special=False)
    return bool(ids) and _is_special(tokenizer, ids[0])


def _is_special(tokenizer: Tokenizer, token_id: int) -> bool:
    shown, hidden = (tokenizer.decode([token_id], skip_special=skip) for skip in (False, True))
    return bool(shown) and not hidden


def check_content(messages: Sequence[Message], index: int, before: str, written: str) -> None:
    """Everything the row has the assistant say is in ``written``, white space aside; a beginning
    of it may be what the prompt ``before`` ends with (``<think>``), and the thinking of a turn that a
    later question has made history may be gone.

    Raises:
        BadRow: the template loses something.
    """
    message = messages[index]
    if _text(message) in written and not (message.get("reasoning_content") or message.get("tool_calls")):
        return  # nearly all messages: nothing has to be copied to see it
    before, written = _squash(before), _squash(written)
    history = any(later["role"] == "user" for later in messages[index + 1 :])
    content = _squash(_text(message))
    if content not in written and content in before + written:
        content = ""
    if history and content not in written:
        content = _answer(content) or content
    wanted = [content]
    if not history:
        wanted.append(_squash(str(message.get("reasoning_content") or "")))
    calls = message.get("tool_calls") or ()
    wanted += [_squash(str(call.get("function", call).get("name", ""))) for call in calls]
    if lost := next((part for part in wanted if part not in written), None):
        raise BadRow(f"the chat template drops part of `messages[{index}]` ({lost[:40]!r}); {ADVICE}")


def check_asked(messages: Sequence[Message], text: str) -> None:
    """What the system and the users say is in the conversation's ``text``, white space aside: an answer is not
    learnt as one to less. What tools return, templates write in forms of their own.

    Raises:
        BadRow: the template drops a message, or a part of one.
    """
    for index, message in enumerate(messages):
        if message["role"] not in ("system", "developer", "user") or _text(message) in text:
            continue
        content = _squash(_text(message))
        if content not in _squash(text):
            what = f"the {message['role']} message `messages[{index}]` ({content[:40]!r})"
            raise BadRow(f"the chat template drops {what}; leave it out of the row, or use a template that writes it")


def _answer(content: str) -> str:
    """What follows the last closing tag (``</think>``)."""
    return CLOSING.split(content)[-1]


def shared(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items two texts or lists have in common at the beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def _squash(text: str) -> str:
    return "".join(text.split())


def _text(message: Message) -> str:
    content = message.get("content") or ""  # None: a call without words
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
