"""Chat templates, rendered as transformers' ``apply_chat_template`` renders them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from ptsdk.data.example import BadRow
from ptsdk.data.sandbox import BoundedEnvironment
from ptsdk.errors import Problem, UserError

if TYPE_CHECKING:
    from ptsdk.data.tokenizer import Tokenizer

Message = Mapping[str, Any]
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
REASONING = ("reasoning_content", "thinking", "reasoning")
"""The keys a message's reasoning goes by; templates read the first, or the second."""
FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a template may raise that does not fit the conversation, or is wrong in itself; RecursionError is
a RuntimeError."""


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation; ``spans`` are the characters inside ``{% generation %}``, None
    where the template has no such block."""

    text: str
    spans: tuple[tuple[int, int], ...] | None


def has_template(tokenizer: Tokenizer) -> bool:
    """Whether conversations can be rendered at all."""
    return tokenizer.chat_template is not None


def template_of(tokenizer: Tokenizer, tools: Sequence[Any] | None = None) -> str:
    """The template to use: a model's ``tool_use`` one where there are tools, else its default.

    Raises:
        UserError: the tokenizer has none.
    """
    if tools and tokenizer.tool_template is not None:
        return tokenizer.tool_template
    if tokenizer.chat_template is None:
        hint = "set tokenizer.chat_template to a Jinja file, or use `instruct` or `text` data"
        raise UserError("the tokenizer has no chat template", hint=hint)
    return tokenizer.chat_template


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[Any] | None = None,
    *,
    add_generation_prompt: bool = False,
    documents: Sequence[Any] | None = None,
    **options: Any,
) -> Rendered:
    """The text of a conversation, and where the assistant wrote it.

    Args:
        tokenizer: gives the template and the special tokens it may refer to.
        messages: ``{role, content, ...}``; keys whose value is None are left out.
        tools: JSON schemas of functions.
        add_generation_prompt: end with the header of the assistant's next turn.
        documents: ``{title, text}`` for retrieval templates.
        options: further variables of the template (``enable_thinking=False``).

    Raises:
        BadRow: the template refuses the conversation.
        UserError: there is no template, or it is not valid Jinja.
    """
    template = template_of(tokenizer, tools)
    spans: list[tuple[int, int]] = []
    written: list[str] = []
    context = {
        **tokenizer.special_tokens,
        "messages": [_with_reasoning(message) for message in messages],
        "tools": list(tools) if tools is not None else None,
        "documents": list(documents) if documents is not None else None,
        "add_generation_prompt": add_generation_prompt,
        **options,
    }
    environment, compiled = _compile(template)
    try:
        with environment.counting(), environment.tracking(spans):
            for block in compiled.generate(context):
                environment.add(len(block))
                written.append(block)
    except FAILURES as error:
        raise BadRow(f"the chat template refuses this conversation: {_why(error)}") from error
    return Rendered("".join(written), tuple(spans) if GENERATION.search(template) else None)


def _with_reasoning(message: Message) -> dict[str, Any]:
    """Without None values, and with the reasoning under the names that templates read."""
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[key] for key in REASONING if key in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}


class _Environment(BoundedEnvironment):
    """The sandbox of one template; notes where its ``{% generation %}`` blocks land."""

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self._local = threading.local()
        self.filters["tojson"] = self.bounded("tojson", _to_json)
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Namespace

    @contextmanager
    def tracking(self, spans: list[tuple[int, int]]) -> Iterator[None]:
        """Inside, blocks add their ``[start, end)`` to ``spans``."""
        self._local.spans = spans
        try:
            yield
        finally:
            del self._local.spans

    def generated(self, caller: Callable[[], str]) -> str:
        """The text of one block, which is about to be written."""
        text, start = caller(), self.written()
        self._local.spans.append((start, start + len(text)))
        return text


class _Generation(Extension):
    """``{% generation %}...{% endgeneration %}``: what the assistant wrote."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        """A call block, so that the body is rendered by itself and its length is known."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = nodes.Call(nodes.EnvironmentAttribute("generated"), [], [], None, None)
        return nodes.CallBlock(call, [], [], body).set_lineno(line)


class _Dict:
    """``dict`` without the attributes that lead out of the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """``dict.fromkeys``."""
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """``namespace`` that holds no underscored name."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # namespace(self=...) is legal
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template cannot store {name!r} in a namespace")


def _why(error: BaseException) -> str:
    return "it calls itself without end" if isinstance(error, RecursionError) else str(error) or type(error).__name__


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=16)
def _compile(template: str) -> tuple[_Environment, jinja2.Template]:
    environment = _Environment()
    try:
        compiled = environment.from_string(template)
        compiled.globals = dict(compiled.globals)  # it is copied for every rendering, and was a chain of two
        return environment, compiled
    except jinja2.TemplateSyntaxError as error:
        raise _refused(f"it is not valid Jinja (line {error.lineno}): {error.message}") from error
    except (RecursionError, MemoryError, SyntaxError) as error:  # of Python's compiler
        raise _refused("it is nested too deep to be compiled") from error


def _refused(why: str) -> UserError:
    return UserError(Problem(f"the chat template cannot be used: {why}", path="tokenizer.chat_template"))
