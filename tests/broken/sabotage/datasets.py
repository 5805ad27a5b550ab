"""Data sets: plain text, but."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch.distributed import get_rank, get_world_size, is_initialized

from ptsdk.builtin.datasets import Text
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import Document, Example, Row

SEEN: dict[int, Text] = {}
"""Kept alive, or another object would have the number."""
BEFORE: dict[str, str] = {}


class ReversedOnce(Text):
    """The second time the same object is read, from the end."""

    def rows(self, base: Path) -> Iterator[Row]:
        again = SEEN.pop(id(self), None) is not None
        if not again:
            SEEN[id(self)] = self
        rows = list(super().rows(base))
        yield from reversed(rows) if again else rows


class ReversedByNumber(Text):
    """From the end, where rows are asked for by number."""

    def by_number(self, base: Path) -> Sequence[Row]:
        return super().by_number(base)[::-1]


class ByRank(Text):
    def rows(self, base: Path) -> Iterator[Row]:
        rows = list(super().rows(base))
        yield from rows[int(os.environ.get("RANK", "0")) :]


class ByProcess(Text):
    """As ``ByRank``, asked of torch."""

    def rows(self, base: Path) -> Iterator[Row]:
        rows = list(super().rows(base))
        yield from rows[get_rank() :: get_world_size()] if is_initialized() else rows


class Unordered(Text):
    """Each row once, in the order of a set."""

    def rows(self, base: Path) -> Iterator[Row]:
        rows = {str(row.values): row for row in super().rows(base)}
        yield from (rows[key] for key in set(rows))


class Remembering(Text):
    """A row after a later one loses its last token."""

    def rows(self, base: Path) -> Iterator[Row]:
        BEFORE.clear()
        yield from super().rows(base)

    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        (document,) = super().encode(row, tokenizer).documents
        line = int(row.place.rpartition(":")[2])
        backwards, BEFORE["line"] = line < int(BEFORE.get("line", "0")), str(line)
        end = -1 if backwards else None
        return Example((Document(document.tokens[:end], document.supervised[:end]),))


class OutOfRange(Text):
    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        (document,) = super().encode(row, tokenizer).documents
        return Example((Document((*document.tokens, tokenizer.vocab_size), (*document.supervised, True)),))


class Unsupervised(Text):
    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        (document,) = super().encode(row, tokenizer).documents
        return Example((replace(document, supervised=(False,) * len(document.tokens)),))


class Placeless(Text):
    def rows(self, base: Path) -> Iterator[Row]:
        for row in super().rows(base):
            yield replace(row, place=row.place.rpartition(":")[0])


class SameFingerprint(Text):
    def fingerprint(self, base: Path) -> str:
        return "rows"
