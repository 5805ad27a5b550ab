"""What a row says, in one shape: a list of messages, or a pair of strings.

Reads OpenAI's ``messages``, ShareGPT's ``conversations``, Alpaca's ``instruction, input, output``,
and the prompt-completion and preference rows of TRL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ptsdk.data.example import BadRow, names

Message = dict[str, Any]
Text = str | list[Message]
"""A prompt or completion: plain text, or messages."""

ROLES = ("system", "developer", "user", "assistant", "tool")
CONTINUING = ("assistant", "tool")
"""Who may speak first in a completion."""
SHAREGPT = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "function_response": "tool",
    "observation": "tool",
}
"""The ``from`` of ShareGPT rows, by role."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt; all three strings, or all three messages."""

    prompt: Text
    chosen: Text
    rejected: Text


def conversation(values: Mapping[str, Any]) -> list[Message]:
    """The messages of a chat row, which ends with the assistant.

    Raises:
        BadRow: no messages, an unknown role, a wrong order, or content that is not text.
    """
    if "messages" in values:
        messages = parse_messages(values["messages"], "messages")
    elif "conversations" in values:
        messages = parse_messages(values["conversations"], "conversations")
    else:
        raise BadRow(f"expected a column `messages` or `conversations`, found {names(values)}")
    if messages[-1]["role"] != "assistant":
        raise BadRow(f"the last message must be the assistant's, it is the {messages[-1]['role']}'s")
    return messages


def prompt_completion(values: Mapping[str, Any]) -> tuple[Text, Text]:
    """The prompt and completion of an instruct row; both strings, or both messages.

    An Alpaca row's prompt is its instruction, followed after an empty line by its input, if any.

    Raises:
        BadRow: a column is missing, empty, or of the wrong type.
    """
    if "prompt" in values and "completion" in values:
        head, tail = _same_shape(prompt(values), completion(values["completion"], "completion"))
        if not isinstance(tail, str) and tail[0]["role"] not in CONTINUING:
            raise BadRow(f"`completion` begins with a {tail[0]['role']} message; that belongs to the prompt")
        return head, tail
    if "instruction" in values and "output" in values:
        head = text(values["instruction"], "instruction")
        more = text(values.get("input") or "", "input", empty=True)
        return (f"{head}\n\n{more}" if more else head), text(values["output"], "output")
    raise BadRow(f"expected `prompt` and `completion`, or `instruction` and `output`, found {names(values)}")


def prompt(values: Mapping[str, Any]) -> Text:
    """The prompt of a row: text, or messages that do not end with the assistant."""
    if "prompt" not in values:
        raise BadRow(f"expected a column `prompt`, found {names(values)}")
    value = _decoded(values["prompt"])
    if isinstance(value, str):
        return text(value, "prompt")
    messages = parse_messages(value, "prompt")
    if messages[-1]["role"] == "assistant":
        raise BadRow("a prompt must not end with the assistant's message")
    return messages


def completion(value: Any, name: str) -> Text:
    """A completion: text, or messages that end with the assistant."""
    value = _decoded(value)
    if isinstance(value, str):
        return text(value, name)
    messages = parse_messages(value, name, continues=True)
    if messages[-1]["role"] != "assistant":
        raise BadRow(f"`{name}` must end with the assistant's message, not the {messages[-1]['role']}'s")
    return messages


def preference(values: Mapping[str, Any]) -> Pair:
    """The prompt and the two answers of a preference row.

    The answers may hold the conversation that led to them: then it is cut off, and must agree
    with ``prompt`` where there is one. Without ``prompt``, it is what the two have in common.

    Raises:
        BadRow: a column is missing, the answers are equal, or do not share the prompt.
    """
    missing = [name for name in ("chosen", "rejected") if name not in values]
    if missing:
        raise BadRow(f"expected columns `chosen` and `rejected`, found {names(values)}")
    chosen, rejected = (completion(values[name], name) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise BadRow("`chosen` and `rejected` are the same")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("`chosen` and `rejected` must both be text or both be messages")
    if values.get("prompt") is None:
        return _implicit(chosen, rejected)
    head = prompt(values)
    if isinstance(chosen, str) or isinstance(rejected, str):
        head, _ = _same_shape(head, chosen)
        return Pair(head, chosen, rejected)
    if any(message["role"] not in CONTINUING for message in (chosen[0], rejected[0])):
        return _explicit_in_full(head, _implicit(chosen, rejected))
    if isinstance(head, str):
        head = [{"role": "user", "content": head}]
    return Pair(head, chosen, rejected)


def _implicit(chosen: Text, rejected: Text) -> Pair:
    """Cut the longest common beginning off both, as TRL's ``extract_prompt`` does."""
    common = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    if common is None:
        raise BadRow("one of `chosen` and `rejected` begins with the whole of the other")
    if isinstance(chosen, str) and common and chosen[common - 1] == " ":
        common -= 1
    if common == 0:
        raise BadRow("there is no `prompt`, and `chosen` and `rejected` do not begin alike")
    return Pair(chosen[:common], chosen[common:], rejected[common:])


def _explicit_in_full(head: Text, pair: Pair) -> Pair:
    """A ``prompt`` beside two whole conversations: it must be what they have in common, or a part of it."""
    if isinstance(head, str):
        agrees = any(message.get("content") == head for message in pair.prompt if isinstance(message, dict))
    else:
        agrees = pair.prompt[: len(head)] == head
    if not agrees:
        raise BadRow("`chosen` and `rejected` are whole conversations that do not begin with `prompt`")
    return pair


def _same_shape(head: Text, tail: Text) -> tuple[Text, Text]:
    if isinstance(head, str) == isinstance(tail, str):
        return head, tail
    if isinstance(head, str):
        return [{"role": "user", "content": head}], tail
    return head, [{"role": "assistant", "content": tail}]


def parse_messages(value: Any, name: str, *, continues: bool = False) -> list[Message]:
    """Validated messages with ``role`` and ``content``; other keys are kept.

    Args:
        value: a list of ``{role, content}`` or ``{from, value}``, or JSON text of one.
        name: the column, for messages.
        continues: the list goes on from a prompt, so it may begin with the assistant or a tool.

    Raises:
        BadRow: as in ``conversation``.
    """
    value = _decoded(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise BadRow(f"`{name}` must be a non-empty list of messages, found {_kind(value)}")
    messages = [_message(item, f"{name}[{i}]") for i, item in enumerate(value)]
    _check_order(messages, name, continues)
    return messages


def _message(item: Any, name: str) -> Message:
    if not isinstance(item, Mapping):
        raise BadRow(f"`{name}` must be a mapping with `role` and `content`, found {_kind(item)}")
    message = {key: value for key, value in item.items() if value is not None}
    if "from" in message and "role" not in message:
        role = SHAREGPT.get(str(message.pop("from")))
        if role is None:
            raise BadRow(f"`{name}.from` is {item['from']!r}; known are {', '.join(SHAREGPT)}")
        message = {"role": role, "content": message.pop("value", None), **message}
    role = message.get("role")
    if role not in ROLES:
        raise BadRow(f"`{name}.role` is {role!r}; known are {', '.join(ROLES)}")
    _check_calls(message.get("tool_calls"), f"{name}.tool_calls")
    if message.get("content") is None and message.get("tool_calls"):
        return {**message, "role": role}  # as transformers does: templates ask whether there is content
    return {**message, "role": role, "content": _content(message, name)}


def _check_calls(value: Any, name: str) -> None:
    """OpenAI's ``{type, function: {name, arguments}}``, or what is in ``function`` alone."""
    if value is None:
        return
    if not isinstance(value, list):
        raise BadRow(f"`{name}` must be a list, found {_kind(value)}")
    for i, call in enumerate(value):
        function = call.get("function", call) if isinstance(call, Mapping) else call
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise BadRow(f"`{name}[{i}]` must be a mapping with a `name`, perhaps under `function`")


def _content(message: Mapping[str, Any], name: str) -> str | list[Any]:
    value = message.get("content")
    if isinstance(value, list):
        return [_part(part, f"{name}.content[{i}]") for i, part in enumerate(value)]
    # A tool may return nothing, and a call or a thought may come without words.
    wordless = bool(message.get("tool_calls")) or message["role"] in ("system", "tool")
    return text(value, f"{name}.content", empty=wordless)


def _part(part: Any, name: str) -> dict[str, Any]:
    if not isinstance(part, Mapping) or part.get("type") != "text":
        raise BadRow(f"`{name}` must be {{type: text, text: ...}}; other content cannot be trained on")
    return {"type": "text", "text": text(part.get("text"), f"{name}.text")}


def _check_order(messages: list[Message], name: str, continues: bool) -> None:
    previous = "assistant" if continues else ""
    for i, message in enumerate(messages):
        role = message["role"]
        if role in ("system", "developer") and i > 0:
            raise BadRow(f"`{name}[{i}]` is a {role} message; only the first may be")
        if role == "user" and previous == "user":
            raise BadRow(f"`{name}[{i}]` is a second user message in a row")
        if role == "tool" and previous not in ("assistant", "tool"):
            raise BadRow(f"`{name}[{i}]` is a tool message that no assistant message asked for")
        previous = role


def text(value: Any, name: str, *, empty: bool = False) -> str:
    """``value`` where it is text that can be encoded.

    Raises:
        BadRow: not a string, empty (unless ``empty``), or not Unicode text.
    """
    if not isinstance(value, str):
        raise BadRow(f"`{name}` must be text, found {_kind(value)}")
    if not value.strip() and not empty:
        raise BadRow(f"`{name}` is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow(f"`{name}` holds half a surrogate pair at character {error.start}") from error
    return value


def tools_of(values: Mapping[str, Any]) -> list[Any] | None:
    """The JSON schemas in a row's ``tools``, which may be JSON text.

    Raises:
        BadRow: neither a list nor the JSON text of one.
    """
    value = values.get("tools")
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"`tools` is not JSON: {error}") from error
    if not isinstance(value, list):
        raise BadRow(f"`tools` must be a list, found {_kind(value)}")
    return value or None


def _decoded(value: Any) -> Any:
    """Messages written as JSON text (as CSV has to) as messages; anything else as it is."""
    if not isinstance(value, str) or not value.startswith("[{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # beyond what Python reads: digits, depth
        return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else "an empty list" if value == [] else type(value).__name__
