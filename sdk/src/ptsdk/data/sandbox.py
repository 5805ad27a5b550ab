"""jinja2's sandbox with bounds: a template from a stranger ends, and fits in memory.

The sandbox keeps a template from Python's internals, but ``{{ 9**9**9 }}``, ``'x' * 10**10`` and nested
loops would still run for ever or fill the memory. Operators, filters and calls are therefore
looked at before they run; loop items and calls are counted.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

from jinja2 import TemplateRuntimeError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_STEPS = 2_000_000
"""Loop items of one rendering, about; a conversation of a thousand turns needs some ten thousand."""
CALL = 20
"""Steps of a call."""
COPIED = 256
"""Characters that are made in a step."""
MAX_SIZE = 2**26
"""Characters, or items of a list, of anything that a template makes."""
MAX_PRODUCT = 2**28
"""Lengths of two texts multiplied, in one call: ``replace`` and ``join`` make up to so many characters."""
MAX_NUMBER = 1_000_000
"""The largest number in an argument: it may be a width (``center``, ``indent``)."""
MAX_BITS = 4_096
"""Of a whole number that an operator makes."""

AMPLIFYING = frozenset({"replace", "join", "translate", "indent", "wordwrap"})
"""Methods and filters that may write one text once for each character of another."""
FREE = frozenset({"default", "d"})
"""Filters that hand their argument on."""

ITEMS = frozenset({"length", "count", "list", "first", "last", "map", "select", "reject", "selectattr", "rejectattr"})
"""Filters that make no text of what they are given."""
NESTED = (list, tuple, dict, Namespace)
MAX_ITEMS = 2**20
"""Items, those inside others too, of a list that is made into text."""

_WIDTH = re.compile(r"(%[^a-zA-Z%]*|\{[^{}]*)\d{7}")


class TemplateLimit(TemplateRuntimeError):
    """A template that would take too much time or memory."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox of one template; render inside ``counting``."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_printed, **options)
        self._counts = threading.local()
        self.concat = _concat  # type: ignore[method-assign]  # of blocks and macros
        self.globals.pop("lipsum")
        self.filters = {name: self.bounded(name, function) for name, function in self.filters.items()}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Start the counts of a rendering."""
        self._counts.steps = self._counts.written = 0
        try:
            yield
        finally:
            del self._counts.steps, self._counts.written

    def add(self, characters: int) -> None:
        """Count what was written.

        Raises:
            TemplateLimit: it is too much.
        """
        self._counts.written += characters
        _check_size(self._counts.written)

    def written(self) -> int:
        """How many characters were written so far."""
        written: int = self._counts.written
        return written

    def step(self, cost: int = 1) -> None:
        """Count a loop item, a call, or something made.

        Raises:
            TemplateLimit: there were too many. Outside of a rendering nothing is counted.
        """
        steps = getattr(self._counts, "steps", None)
        if steps is not None:
            self._counts.steps = steps + cost
            if steps > MAX_STEPS:
                raise TemplateLimit(f"it takes more than {MAX_STEPS} steps")

    def bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The filter ``function``, looked at before it runs; what jinja2 wants to know of it is kept."""

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if name not in FREE:
                _check_arguments(name, args[0], [*args[1:], *kwargs.values()])
            return self._made(function(*args, **kwargs))

        return checked

    def ticking(self, items: Iterable[Any]) -> Iterator[Any]:
        """``items``, each of them counted."""
        for item in items:
            self.step()
            yield item

    def joined(self, *parts: Any) -> str:
        """What ``a ~ b`` means."""
        return _concat([str(_printed(part)) for part in parts])

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See jinja2; looks at the arguments first."""
        self.step(CALL)
        owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if owner is self:  # no template can name these: they are put into it when it is read
            for local in ("_loop_vars", "_block_vars"):
                kwargs.pop(local, None)
            return self._made(function(*args, **kwargs))
        if owner is not None:
            _check_arguments(function.__name__, owner, [*args, *kwargs.values()])
        return self._made(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """See jinja2; looks at the operands first."""
        if operator == "+" and type(left) is type(right) is str:  # nearly all that templates do
            if (size := len(left) + len(right)) >= COPIED:
                _check_size(size)
                self.step(size // COPIED)
            return left + right
        _check_operands(operator, left, right)
        return self._made(super().call_binop(context, operator, left, right))

    def _made(self, value: Any) -> Any:
        if isinstance(value, (str, list, tuple)):
            _check_size(len(value))
            self.step(len(value) // COPIED)
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counted().visit(super()._parse(source, name, filename))
        return tree


class _Counted(NodeTransformer):
    """Sends every loop and every ``~`` through the environment."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _call("ticking", [node.iter], node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return _call("joined", node.nodes, node.lineno)


def _call(method: str, arguments: Sequence[nodes.Node], line: int) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(method), list(arguments), [], None, None)
    call.set_lineno(line)
    return call


def _concat(parts: Iterable[str]) -> str:
    parts = list(parts)
    _check_size(sum(map(len, parts)))
    return "".join(parts)


def _check_arguments(name: str, value: Any, arguments: list[Any]) -> None:
    """Before ``value.name(*arguments)`` or ``value|name(*arguments)``."""
    if name not in ITEMS:
        for one in (value, *arguments):
            _printed(one)
    if name in ("format", "format_map"):
        _check_format(value, arguments)
    elif any(isinstance(a, int) and abs(a) > MAX_NUMBER for a in arguments):
        raise TemplateLimit(f"an argument of `{name}` is above {MAX_NUMBER}")
    longest = sorted((_length(a) for a in (value, *arguments)), reverse=True)[:2]
    if name in AMPLIFYING and len(longest) == 2 and longest[0] * longest[1] > MAX_PRODUCT:
        raise TemplateLimit(f"`{name}` would make a text of more than {MAX_SIZE} characters")


def _check_operands(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        _check_format(left, right if isinstance(right, tuple) else (right,))
    elif operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
        _check_size(len(left) + len(right))
    elif operator == "*" and (isinstance(left, Sized) or isinstance(right, Sized)):
        sequence, times = (left, right) if isinstance(left, Sized) else (right, left)
        _check_size(len(sequence) * times if isinstance(times, int) else 0)
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_BITS:
            raise TemplateLimit(f"a number has more than {MAX_BITS} bits")


def _check_format(text: object, values: Iterable[Any]) -> None:
    """A width may stand in the text, or among the values where the text says so."""
    values = [_printed(value) for value in values]
    wide = isinstance(text, str) and _WIDTH.search(text)
    from_values = isinstance(text, str) and ("*" in text or re.search(r":[^{}]*\{", text))
    if wide or (from_values and any(isinstance(v, int) and abs(v) > MAX_NUMBER for v in values)):
        raise TemplateLimit(f"a format is wider than {MAX_NUMBER}")


def _printed(value: Any) -> Any:
    """``value``, which is about to be text: a list may hold another one twice, which holds a third one twice."""
    if type(value) is str or not isinstance(value, NESTED):
        return value
    left, seen = [value], 0
    while left:
        one = left.pop()
        seen += 1
        if isinstance(one, Namespace):
            one = object.__getattribute__(one, "__dict__")
        if isinstance(one, NESTED):
            left += one.values() if isinstance(one, dict) else one
        if seen + len(left) > MAX_ITEMS:
            raise TemplateLimit(f"it makes a text of a list of more than {MAX_ITEMS} items")
    return value


def _length(value: Any) -> int:
    """Characters of a text, or of the texts in a list."""
    if isinstance(value, str):
        return len(value)
    return sum(len(item) for item in value if isinstance(item, str)) if isinstance(value, (list, tuple)) else 0


def _check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise TemplateLimit(f"it makes something of more than {MAX_SIZE} characters or items")
