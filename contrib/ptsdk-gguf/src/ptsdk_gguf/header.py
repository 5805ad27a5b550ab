"""The head of a GGUF file: metadata and where each tensor lies.

The ``gguf`` package's reader makes an array object of every string; with a vocabulary of 262,144
that takes twelve seconds, this takes a third of one. The format is specified in ggml's docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from ptsdk.errors import Problem, UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letter for each type number of a metadata value."""
DEFAULT_ALIGNMENT = 32


class Malformed(ValueError):
    """The bytes are not those of a GGUF file that this reads; the message says why."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: ``shape`` in torch's order, ``start`` and ``size`` in bytes of the file."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model family."""
        return str(self.metadata["general.architecture"])

    def get(self, key: str, default: Any = None) -> Any:
        """A value under the architecture's own prefix: ``get("block_count")``."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def need(self, key: str) -> Any:
        """The same where it must be there.

        Raises:
            UserError: it is not.
        """
        value = self.get(key)
        if value is None:
            raise UserError(Problem(f"no {self.architecture}.{key} in the metadata", REFETCH, str(self.path)))
        return value


REFETCH = "fetch the file again, or convert it again with a current llama.cpp"


def read_header(path: Path) -> Header:
    """Read metadata and tensor places, no weights.

    Raises:
        UserError: not GGUF, truncated, of another version or byte order, or one part of several.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except (Malformed, struct.error, UnicodeDecodeError) as error:
        raise UserError(Problem(f"not a readable GGUF file: {error}", REFETCH, str(path))) from error
    except (OSError, ValueError) as error:  # mmap raises ValueError for an empty file
        raise UserError(Problem(f"cannot be opened: {error}", REFETCH, str(path))) from error


class _Cursor:
    """A place in the file that moves on as values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def scalar(self, letter: str) -> Any:
        (value,) = struct.unpack_from(f"<{letter}", self.data, self.at)
        self.at += struct.calcsize(f"<{letter}")
        return value

    def string(self) -> str:
        return self.take(self.scalar("Q")).decode("utf-8")

    def take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.data):
            raise Malformed(f"it ends at byte {len(self.data)}, within a value")
        raw, self.at = self.data[self.at : end], end
        return raw

    def array(self) -> list[Any]:
        kind, count = self.scalar("I"), self.scalar("Q")
        if kind == STRING:
            return [self.string() for _ in range(self._fits(count, 8))]
        letter = _letter(kind)
        self._fits(count, struct.calcsize(f"<{letter}"))
        return list(struct.unpack(f"<{count}{letter}", self.take(count * struct.calcsize(f"<{letter}"))))

    def _fits(self, count: int, width: int) -> int:
        if count * width > len(self.data) - self.at:
            raise Malformed(f"it ends at byte {len(self.data)}, within an array of {count}")
        return count

    def value(self) -> Any:
        kind = self.scalar("I")
        readers: dict[int, Callable[[], Any]] = {STRING: self.string, ARRAY: self.array}
        return readers[kind]() if kind in readers else self.scalar(_letter(kind))


def _letter(kind: int) -> str:
    if kind not in SCALARS:
        raise Malformed(f"metadata of type {kind}")
    return SCALARS[kind]


def _parse(path: Path, data: mmap.mmap) -> Header:
    cursor = _Cursor(data)
    if cursor.take(4) != MAGIC:
        raise Malformed("it does not start with 'GGUF'")
    version = cursor.scalar("I")
    if version not in VERSIONS:
        raise Malformed(f"version {version}; little-endian versions {VERSIONS} are read")
    tensor_count, value_count = cursor.scalar("Q"), cursor.scalar("Q")
    metadata = {cursor.string(): cursor.value() for _ in range(value_count)}
    if "general.architecture" not in metadata:
        raise Malformed("no general.architecture")
    if metadata.get("split.count", 1) > 1:
        raise Malformed(f"one of {metadata['split.count']} parts: join them with llama-gguf-split --merge")
    places = [_place(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    locate = partial(_locate, base=-(-cursor.at // alignment) * alignment, length=len(data))
    return Header(path, metadata, {place[0]: locate(*place) for place in places})


def _place(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset of the next tensor."""
    name, dimensions = cursor.string(), cursor.scalar("I")
    shape = tuple(cursor.scalar("Q") for _ in range(dimensions))
    return name, shape[::-1], cursor.scalar("I"), cursor.scalar("Q")


def _locate(name: str, shape: tuple[int, ...], kind: int, offset: int, *, base: int, length: int) -> TensorInfo:
    if kind not in GGML_QUANT_SIZES:
        raise Malformed(f"tensor {name} is of type {kind}, which the installed gguf package does not know")
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    count = 1
    for dimension in shape:
        count *= dimension
    if not shape or count == 0 or shape[-1] % values:
        raise Malformed(f"tensor {name} has the shape {shape}, not in blocks of {values}")
    start, nbytes = base + offset, count // values * size
    if start + nbytes > length:
        raise Malformed(f"it ends at byte {length}, within tensor {name}, which ends at {start + nbytes}")
    return TensorInfo(shape, GGMLQuantizationType(kind), start, nbytes)
