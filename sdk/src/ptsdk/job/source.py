"""job.yaml as plain values, and for each of them the line it stands on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptsdk.errors import Problem, UserError
from ptsdk.job.yaml_nodes import MAX_DEPTH, YamlError, compose, scalar

Keys = tuple[str | int, ...]
"""Where a value stands: ``("data", "train", 0, "path")``."""

MAX_BYTES = 1_000_000
MAX_NODES = 5_000
OVERRIDE = "override"
"""What a problem gives as its file when an override of the command line is at fault."""

_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""What an escape can smuggle into a text that no file or path can hold."""
_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def dotted(keys: Keys) -> str:
    """Spelled like an override: ``data.train.0.path``."""
    return ".".join(map(str, keys))


@dataclass(frozen=True)
class Source:
    """The values of a job, and where each of them was written.

    Attributes:
        file: as messages name it.
        text: the file as it is, for the run directory.
        values: plain mappings, lists and scalars.
        lines: line of each key or list item, counted from 1.
        overrides: the text of the override that set or removed a value.
        problems: what of the file is no part of ``values``: the second of two equal keys, a value or
            key that cannot be read.
        unreadable: the values and sections of which nothing more can be said for that reason.
    """

    file: str
    text: str
    values: dict[str, Any]
    lines: Mapping[Keys, int] = field(default_factory=dict)
    overrides: Mapping[Keys, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    unreadable: frozenset[Keys] = frozenset()

    def problem(self, keys: Keys, message: str, hint: str = "") -> Problem:
        """A fault of the value at ``keys``: at its own line, else at that of the nearest section
        around it; of an override, when one set that value."""
        for length in range(len(keys), 0, -1):
            part = keys[:length]
            if part in self.overrides:
                hint = f"{hint} (given as `{self.overrides[part]}`)".lstrip()
                return Problem(message, hint, OVERRIDE, 1, dotted(keys))
            if part in self.lines:
                return Problem(message, hint, self.file, self.lines[part], dotted(keys))
        return Problem(message, hint, self.file, 1, dotted(keys))


def read_source(path: Path) -> Source:
    """Read a job file.

    Raises:
        UserError: no such file, not UTF-8, not YAML, or not a mapping. Duplicate keys and values
            that a job cannot hold are ``problems`` of the source, to be told with what else is wrong.
    """
    file = str(path)
    text = _decode(_read(path), file)
    values, reader = _parse(text, file)
    problems = reader.told(file)
    if isinstance(values, dict):
        return Source(file, text, values, reader.lines, {}, problems, frozenset(reader.unreadable))
    if problems:
        raise UserError(*problems)
    if values is None:
        raise UserError(Problem("the file is empty", "a job starts with `api: 1`", file))
    raise UserError(Problem("a job is a mapping of sections", "write `key: value` lines; start with `api: 1`", file))


def parse(text: str, file: str) -> tuple[Any, dict[Keys, int]]:
    """The value of one YAML 1.2 document, and the line of each key and item in it.

    Raises:
        UserError: it is not YAML, or holds what a job cannot.
    """
    value, reader = _parse(text, file)
    if reader.problems:
        raise UserError(*reader.told(file))
    return value, reader.lines


def _parse(text: str, file: str) -> tuple[Any, _Reader]:
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        message = f"the character U+{ord(control.group()):04X} is not allowed in YAML"
        raise UserError(Problem(message, "save the file as plain text", file, line))
    reader = _Reader()
    try:
        root = compose(text)
        value = None if root is None else reader.value(root, ())
    except YamlError as error:
        raise UserError(Problem(error.message, error.hint, file, error.line)) from error
    return value, reader


class _Reader:
    """Turns nodes into values, keeping lines and everything that is wrong on the way."""

    def __init__(self) -> None:
        self.lines: dict[Keys, int] = {}
        self.problems: list[tuple[Keys, int, str, str]] = []
        self.unreadable: set[Keys] = set()
        self._nodes = 0

    def told(self, file: str) -> tuple[Problem, ...]:
        """The problems, as those of ``file``."""
        return tuple(Problem(m, h, file, line, dotted(keys)) for keys, line, m, h in self.problems)

    def value(self, node: Any, keys: Keys) -> Any:
        self._nodes += 1
        if len(keys) > MAX_DEPTH:  # an alias may stand inside what it stands for
            raise YamlError(f"nested more than {MAX_DEPTH} deep", node.start_mark.line + 1)
        if self._nodes > MAX_NODES:
            line = node.start_mark.line + 1
            raise YamlError(
                f"more than {MAX_NODES} values", line, "aliases (*name) repeat what they stand for each time"
            )
        if node.id == "mapping" and self._plain(node, keys, "map"):
            return dict(self._pairs(node, keys))
        if node.id == "sequence" and self._plain(node, keys, "seq"):
            return [self._item(child, (*keys, i)) for i, child in enumerate(node.value)]
        return self._scalar(node, keys) if node.id == "scalar" else None

    def _item(self, node: Any, keys: Keys) -> Any:
        self.lines[keys] = node.start_mark.line + 1
        return self.value(node, keys)

    def _pairs(self, node: Any, keys: Keys) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node, keys, line)
            if key is None:
                self.unreadable.add(keys)
                continue
            if key in seen:
                self._fault((*keys, key), line, f"duplicate key, first on line {seen[key]}", "keep one of them")
                continue
            seen[key] = self.lines[(*keys, key)] = line
            yield key, self.value(value_node, (*keys, key))

    def _key(self, node: Any, keys: Keys, line: int) -> str | None:
        if node.id == "scalar" and node.value == "<<" and node.style is None:
            self._fault((*keys, "<<"), line, "merge keys are not part of YAML 1.2", "write the keys out")
        elif node.id == "scalar" and node.tag == "tag:yaml.org,2002:str":
            if not _UNWRITABLE.search(node.value):
                return str(node.value)
            self._fault(keys, line, "a key holds a character that cannot be written", "write plain text")
        elif node.id == "scalar":
            self._fault((*keys, node.value), line, "a key must be a string", f'write "{node.value}"')
        else:
            self._fault(keys, line, "a key must be a string, not a list or mapping", "was a template {{...}} meant?")
        return None

    def _scalar(self, node: Any, keys: Keys) -> Any:
        try:
            if wrong := _UNWRITABLE.search(node.value):
                raise ValueError(f"the character U+{ord(wrong.group()):04X} cannot be part of a job")
            return scalar(node)
        except ValueError as error:
            self._fault(keys, node.start_mark.line + 1, str(error), "use plain YAML values, without tags")
            self.unreadable.add(keys)
            return None

    def _plain(self, node: Any, keys: Keys, tag: str) -> bool:
        if node.tag == f"tag:yaml.org,2002:{tag}":
            return True
        message = f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not allowed"
        self._fault(keys, node.start_mark.line + 1, message, "use plain YAML values, without tags")
        self.unreadable.add(keys)
        return False

    def _fault(self, keys: Keys, line: int, message: str, hint: str) -> None:
        self.problems.append((keys, line, message, hint))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(Problem(f"cannot read the job: {reason}", "give the path of a job.yaml", str(path))) from error
    if len(data) > MAX_BYTES:
        raise UserError(Problem(f"larger than {MAX_BYTES} bytes", "is this a job, or its data?", str(path)))
    return data


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise UserError(Problem(message, "save the file as UTF-8", file, line)) from error
