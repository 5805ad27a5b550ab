"""Examples in columns: about five bytes a token instead of a Python object each."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptsdk.data.example import Document, Example, Examples

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExampleStore(Examples):
    """``n`` examples of ``D`` documents of ``T`` tokens in all.

    An ``Example`` is built when it is asked for. Made by ``StoreBuilder``, joined by ``concat``.

    Attributes:
        tokens: int32 [T], all documents end to end.
        supervised: bool [T], whether predicting the token carries loss.
        document_ends: int64 [D + 1]; document ``i`` is ``tokens[document_ends[i]:document_ends[i + 1]]``.
        example_ends: int64 [n + 1], likewise into the documents.
        supervised_tokens: int32 [n], tokens of each example that carry loss; a document's first does
            not, whatever its mask says, since nothing predicts it.
        extras: JSON text of the extras of those examples that have any, by index.
        files: names of the data files.
        file_ids: int32 [n], which of ``files`` an example came from.
        lines: int64 [n], its line there; 0 where the place has none.
    """

    tokens: Int32
    supervised: NDArray[np.bool_]
    document_ends: Int64
    example_ends: Int64
    supervised_tokens: Int32
    extras: Mapping[int, str]
    files: tuple[str, ...]
    file_ids: Int32
    lines: Int64

    def __len__(self) -> int:
        return len(self.lines)

    def item(self, index: int) -> Example:
        """See ``ByNumber``."""
        extras = self.extras.get(index)
        documents = map(self._document, range(self.example_ends[index], self.example_ends[index + 1]))
        return Example(tuple(documents), json.loads(extras) if extras else {})

    @property
    def lengths(self) -> Int64:
        """int64 [n]: tokens of each example, over all its documents."""
        lengths: Int64 = np.diff(self.document_ends[self.example_ends])
        return lengths

    def place(self, index: int) -> str:
        """Where an example came from: ``file:line``."""
        file, line = self.files[self.file_ids[index]], int(self.lines[index])
        return f"{file}:{line}" if line else file

    def example_of_token(self, position: int) -> int:
        """The index of the example that ``tokens[position]`` belongs to."""
        return int(np.searchsorted(self.document_ends[self.example_ends], position, side="right")) - 1

    def _document(self, index: int) -> Document:
        part = slice(self.document_ends[index], self.document_ends[index + 1])
        return Document(tuple(self.tokens[part].tolist()), tuple(self.supervised[part].tolist()))


class StoreBuilder:
    """Appends examples; ``build`` makes the store of them."""

    def __init__(self) -> None:
        self._tokens, self._supervised = array("i"), bytearray()
        self._document_ends, self._example_ends = array("q", [0]), array("q", [0])
        self._supervised_tokens, self._extras = array("i"), dict[int, str]()
        self._files: dict[str, int] = {}
        self._file_ids, self._lines = array("i"), array("q")

    def append(self, example: Example, place: str = "") -> None:
        """Add ``example``, which came from ``place`` (``file:line``).

        Raises:
            TypeError: extras that JSON cannot hold; nothing was added.
            ValueError: a document whose mask is not as long as its tokens; nothing was added.
        """
        extras = json.dumps(dict(example.extras), ensure_ascii=False) if example.extras else ""
        for document in example.documents:
            if len(document.tokens) != len(document.supervised):
                raise ValueError(f"{len(document.tokens)} tokens, but a mask of {len(document.supervised)}")
        if extras:
            self._extras[len(self._lines)] = extras
        for document in example.documents:
            self._tokens.fromlist(list(document.tokens))
            self._supervised.extend(document.supervised)
            self._document_ends.append(len(self._tokens))
        self._example_ends.append(len(self._document_ends) - 1)
        self._supervised_tokens.append(example.supervised)
        file, line = _split(place)
        self._file_ids.append(self._files.setdefault(file, len(self._files)))
        self._lines.append(line)

    def build(self) -> ExampleStore:
        """The store, over the builder's own memory: nothing can be appended afterwards."""
        return ExampleStore(
            tokens=np.frombuffer(self._tokens, np.int32),
            supervised=np.frombuffer(self._supervised, np.bool_),
            document_ends=np.frombuffer(self._document_ends, np.int64),
            example_ends=np.frombuffer(self._example_ends, np.int64),
            supervised_tokens=np.frombuffer(self._supervised_tokens, np.int32),
            extras=self._extras,
            files=tuple(self._files),
            file_ids=np.frombuffer(self._file_ids, np.int32),
            lines=np.frombuffer(self._lines, np.int64),
        )


def concat(stores: Sequence[ExampleStore]) -> ExampleStore:
    """The examples of several stores, at least one, one after the other."""
    if len(stores) == 1:
        return stores[0]
    files = {name: i for i, name in enumerate(dict.fromkeys(name for store in stores for name in store.files))}
    file_ids = [np.array([files[name] for name in s.files], np.int32)[s.file_ids] for s in stores]
    starts = np.cumsum([0, *map(len, stores)]).tolist()
    return ExampleStore(
        tokens=np.concatenate([s.tokens for s in stores]),
        supervised=np.concatenate([s.supervised for s in stores]),
        document_ends=_joined([s.document_ends for s in stores]),
        example_ends=_joined([s.example_ends for s in stores]),
        supervised_tokens=np.concatenate([s.supervised_tokens for s in stores]),
        extras={start + i: text for start, s in zip(starts, stores, strict=False) for i, text in s.extras.items()},
        files=tuple(files),
        file_ids=np.concatenate(file_ids),
        lines=np.concatenate([s.lines for s in stores]),
    )


def _joined(ends: Sequence[Int64]) -> Int64:
    """Running ends, each list going on where the one before stopped."""
    starts = np.cumsum([0, *(part[-1] for part in ends)])
    return np.concatenate([[0], *(part[1:] + start for part, start in zip(ends, starts[:-1], strict=True))])


def _split(place: str) -> tuple[str, int]:
    """``file:line`` in two; the line is 0 where there is none."""
    file, colon, line = place.rpartition(":")
    return (file, int(line)) if colon and line.isdecimal() else (place, 0)
