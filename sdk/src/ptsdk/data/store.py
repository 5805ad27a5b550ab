"""Examples in memory: columns of numbers instead of objects, about five bytes a token."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ptsdk.data.example import Document, Example


@dataclass(frozen=True, eq=False)
class ExampleStore(Sequence[Example]):
    """n examples of d documents of t tokens in all, made by a ``StoreBuilder``.

    Attributes:
        tokens: int32 [t].
        supervised: bool [t].
        document_ends: int64 [d + 1]; document ``i`` is ``tokens[document_ends[i]:document_ends[i + 1]]``.
        example_ends: int64 [n + 1], likewise into the documents.
        extras: JSON of the examples that have any, by index.
        places: where each example came from, ``file:line``.
    """

    tokens: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    document_ends: NDArray[np.int64]
    example_ends: NDArray[np.int64]
    extras: dict[int, str]
    places: list[str]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        documents = tuple(self._document(i) for i in range(self.example_ends[index], self.example_ends[index + 1]))
        return Example(documents, json.loads(self.extras.get(index, "{}")))

    def _document(self, index: int) -> Document:
        part = slice(self.document_ends[index], self.document_ends[index + 1])
        return Document(tuple(self.tokens[part].tolist()), tuple(self.supervised[part].tolist()))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, int64 [n]."""
        return np.diff(self.document_ends[self.example_ends])

    def place(self, index: int) -> str:
        """``file:line`` of an example."""
        return self.places[index]

    def example_of_token(self, position: int) -> int:
        """The index of the example that ``tokens[position]`` belongs to."""
        return int(np.searchsorted(self.document_ends[self.example_ends], position, side="right")) - 1


class StoreBuilder:
    """Appends examples; ``build`` makes the store of them."""

    def __init__(self) -> None:
        self._tokens, self._supervised = array("i"), bytearray()
        self._document_ends, self._example_ends = array("q", [0]), array("q", [0])
        self._extras: dict[int, str] = {}
        self._places: list[str] = []

    def append(self, example: Example, place: str = "") -> None:
        """Add ``example``, which came from ``place``.

        Raises:
            TypeError: its extras are not JSON-able; nothing was added.
        """
        extras = json.dumps(example.extras) if example.extras else None
        if extras is not None:
            self._extras[len(self._places)] = extras
        for document in example.documents:
            self._tokens.extend(document.tokens)
            self._supervised.extend(document.supervised)
            self._document_ends.append(len(self._tokens))
        self._example_ends.append(len(self._document_ends) - 1)
        self._places.append(place)

    def build(self) -> ExampleStore:
        """The store of all that was appended."""
        return ExampleStore(
            tokens=np.array(self._tokens, dtype=np.int32),
            supervised=np.frombuffer(bytes(self._supervised), dtype=np.bool_),
            document_ends=np.array(self._document_ends, dtype=np.int64),
            example_ends=np.array(self._example_ends, dtype=np.int64),
            extras=self._extras,
            places=self._places,
        )


def concat(stores: Sequence[ExampleStore]) -> ExampleStore:
    """The examples of several stores, one after the other."""
    if len(stores) == 1:
        return stores[0]
    extras: dict[int, str] = {}
    places: list[str] = []
    for store in stores:
        extras |= {len(places) + index: text for index, text in store.extras.items()}
        places += store.places
    return ExampleStore(
        tokens=np.concatenate([store.tokens for store in stores]),
        supervised=np.concatenate([store.supervised for store in stores]),
        document_ends=_joined([store.document_ends for store in stores]),
        example_ends=_joined([store.example_ends for store in stores]),
        extras=extras,
        places=places,
    )


def _joined(ends: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Running ends, each list going on where the one before stopped."""
    starts = np.cumsum([0, *(part[-1] for part in ends)])
    return np.concatenate([[0], *(part[1:] + start for part, start in zip(ends, starts[:-1], strict=True))])
