"""What a data set turns a row into."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptsdk.data.by_number import ByNumber


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a data file. ``place`` is ``file:line``, for messages.

    ``fault`` says why the record could not be read, where the ones after it can: such a row has no
    values, and is a bad one by ``data.on_bad_row``.
    """

    values: Mapping[str, Any]
    place: str = ""
    fault: str = ""

    @property
    def columns(self) -> str:
        """The names of its columns, for a message; what cannot be printed is escaped."""
        return names(self.values)


def names(values: Mapping[str, Any]) -> str:
    """The keys of a row, for a message."""
    return ", ".join(str(key) if str(key).isprintable() else repr(key) for key in values) or "none"


class BadRow(ValueError):
    """A row that cannot become an example; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids, and for each whether predicting it carries loss."""

    tokens: tuple[int, ...]
    supervised: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """What one row gives a method.

    ``documents``: one for the objectives token, binary and policy (the prompt); two for
    preference (chosen, rejected). ``extras``: whatever else the row carries, JSON-able (the label
    of ``binary``, the other columns of ``prompts``).
    """

    documents: tuple[Document, ...]
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens over all documents."""
        return sum(len(document.tokens) for document in self.documents)

    @property
    def supervised(self) -> int:
        """Tokens that carry loss, over all documents."""
        return sum(sum(document.supervised[1:]) for document in self.documents)


class Examples(ByNumber[Example]):
    """Examples, each of which knows where it came from."""

    @abstractmethod
    def place(self, index: int) -> str:
        """Where an example came from: ``file:line``."""
