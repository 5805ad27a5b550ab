"""YAML 1.2 nodes with marks, from PyYAML's safe loader.

PyYAML reads YAML 1.1, in which ``1e-5`` and ``1E5`` are strings, ``no`` is false and ``1:30`` is 90.
The core schema of YAML 1.2 (yaml.org/spec/1.2.2, section 10.3) is put in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

MAX_DEPTH = 50
MAX_DIGITS = 100

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class YamlError(Exception):
    """A document that cannot be read at all."""

    def __init__(self, message: str, line: int, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.hint = message, line, hint


class _Loader(yaml.SafeLoader):
    """Composes nodes; the depth is bounded because both PyYAML and its callers recurse."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own protocol)
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} deep", self.line + 1)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", _INT.pattern, list("-+0123456789")),
    ("float", _FLOAT.pattern, list("-+.0123456789")),
    ("float", _NOT_FINITE.pattern, list("-+.")),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)


def compose(text: str) -> yaml.Node | None:
    """The root node of the one document in ``text``, None when there is none.

    Raises:
        YamlError: it is not YAML, is several documents, or is nested too deeply.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _explain(error) from error
    finally:
        loader.dispose()


def without(text: str, hidden: Callable[[str], bool], put: str) -> str:
    """The document in ``text`` with ``put`` in the place of every string under a key that is ``hidden``, however
    it is written.

    Raises:
        YamlError: see ``compose``.
    """
    spans, seen = set(), set[int]()
    left = [compose(text)]
    while left:
        node = left.pop()
        if node is None or id(node) in seen:  # an alias stands for a node that was met
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            left += [part for pair in node.value for part in pair]
            spans |= {_span(text, value) for key, value in node.value if _is_text(value) and hidden(str(key.value))}
        elif isinstance(node, yaml.SequenceNode):
            left += node.value
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + put + text[end:]
    return text


def _is_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}str"


def _span(text: str, node: yaml.Node) -> tuple[int, int]:
    """Where the text of a node stands, behind its anchor and tag, up to the end of its last line."""
    start, end = node.start_mark.index, node.end_mark.index
    written = text[start:end].rstrip()
    properties = re.match(r"([&!]\S*\s+)*", written)
    return start + (properties.end() if properties else 0), start + len(written)


def scalar(node: yaml.ScalarNode) -> Any:
    """The value of a scalar by its tag.

    Raises:
        ValueError: a tag outside the core schema, or a value that is not of its tag.
    """
    text, tag = str(node.value), node.tag.removeprefix(_TAG)
    if tag == "str":
        return text
    if tag == "null" and text in ("", "~", "null", "Null", "NULL"):
        return None
    if tag == "bool" and text in _WORDS:
        return _WORDS[text]
    if tag == "int" and len(text) <= MAX_DIGITS and _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if tag == "float" and (_FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text)):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    shown = text if len(text) <= 40 else f"{text[:37]}..."
    raise ValueError(f"{shown!r} cannot be read as {node.tag.replace(_TAG, '!!')}")


def _explain(error: yaml.MarkedYAMLError) -> YamlError:
    """PyYAML's finding in a user's words, at the line where something can be done about it."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    problem = error.problem or "not YAML"
    if "\\t" in problem:
        return YamlError("a tab is used for indentation", line, "YAML indents with spaces")
    if "expected a single document" in (error.context or ""):
        return YamlError("more than one YAML document", line, "remove the `---` line")
    if "mapping values are not allowed" in problem:
        return YamlError(
            "`key: value` is not possible here", line, "quote a text that holds `: `, or check indentation"
        )
    context = f" {error.context}" if error.context else ""
    return YamlError(f"not YAML: {problem}{context}", line, "look for a missing quote, bracket or space on this line")
