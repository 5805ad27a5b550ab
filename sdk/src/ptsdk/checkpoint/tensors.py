"""Tensors on disk: safetensors, memory-mapped when read."""

from __future__ import annotations

import json
import math
import mmap
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary, finalize

import torch
from torch import Tensor

from ptsdk.checkpoint.files import WriteError, write_json
from ptsdk.errors import RunError, UserError

ALIASES = "ptsdk.aliases"
"""Metadata of a safetensors file: JSON {name: the name it shares its storage with}."""
MAX_SHARD_BYTES = 5 * 10**9
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""


DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
"""The dtype codes of the format that torch has."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a safetensors header: the format's dtype code (``F32``), its shape, and which bytes of the file
    it is."""

    dtype: str
    shape: tuple[int, ...]
    bytes: slice


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a safetensors file, checked against the size of the file; no tensor is read.

    Raises:
        UserError: truncated or malformed; the message has the expected and the actual size.
    """
    actual = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if actual < 8 or length > min(actual - 8, MAX_HEADER_BYTES):
            raise _malformed(path, f"its header should end at byte {8 + length}, but the file has {actual} bytes")
        raw = file.read(length)
    try:
        fields = json.loads(raw)
        metadata = fields.pop("__metadata__", None) or {}
        entries = {name: _entry(field, 8 + length) for name, field in fields.items()}
        end = max((entry.bytes.stop for entry in entries.values()), default=8 + length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _malformed(path, f"its header is not what the format demands ({error!r})") from error
    if actual != end:
        raise _malformed(path, f"expected {end} bytes, but the file has {actual} bytes")
    return Header(entries, metadata)


def _entry(field: Mapping[str, Any], start: int) -> Entry:
    """One field of a header whose data begins at byte ``start``."""
    begin, end = field["data_offsets"]
    entry = Entry(field["dtype"], tuple(field["shape"]), slice(start + begin, start + end))
    if not 0 <= begin <= end or any(size < 0 for size in entry.shape):
        raise ValueError(f"data_offsets are {[begin, end]}, the shape is {list(entry.shape)}")
    if entry.dtype in DTYPES and end - begin != math.prod(entry.shape) * DTYPES[entry.dtype].itemsize:
        raise ValueError(f"{end - begin} bytes for {entry.dtype} {list(entry.shape)}")
    return entry


def _malformed(path: Path, why: str) -> UserError:
    return UserError(f"{path} is not a complete safetensors file: {why}", hint="fetch or copy the file again")


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of some safetensors files, memory-mapped: read when they are used.

    What has been read of a tensor leaves memory with the tensor, where a mapping would keep all that was ever read; as
    long as it is alive, asking again gives the same memory.
    """

    def __init__(self, files: Mapping[str, Path], aliases: Mapping[str, str] | None = None) -> None:
        """Read the headers.

        Args:
            files: for each tensor's name, the file that holds it.
            aliases: further names, each with the name of its tensor.

        Raises:
            UserError: a file is malformed, or lacks a tensor.
        """
        self._headers = {path: read_header(path) for path in dict.fromkeys(files.values())}
        self._files = dict(files)
        self._aliases = dict(aliases or {})
        self._mapped: dict[Path, mmap.mmap] = {}
        self._alive: WeakValueDictionary[str, memoryview] = WeakValueDictionary()
        for name, path in files.items():
            if name not in self._headers[path].entries:
                raise _malformed(path, f"it lacks the tensor {name}")

    @classmethod
    def of(cls, path: Path) -> TensorFiles:
        """The tensors of one file, shared ones under each of their names."""
        header = read_header(path)
        return cls(dict.fromkeys(header.entries, path), json.loads(header.metadata.get(ALIASES, "{}")))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor, from the header."""
        name = self._aliases.get(name, name)
        return self._headers[self._files[name]].entries[name].shape

    def __getitem__(self, name: str) -> Tensor:
        name = self._aliases.get(name, name)
        path = self._files[name]
        entry = self._headers[path].entries[name]
        if entry.dtype not in DTYPES:
            raise UserError(f"{path}: {name} is of the dtype {entry.dtype}, which torch does not have")
        dtype = DTYPES[entry.dtype]
        if not math.prod(entry.shape):
            return torch.empty(entry.shape, dtype=dtype)
        memory = self._alive.get(name)
        if memory is None:
            self._alive[name] = memory = self._memory(path, entry.bytes)
        return torch.frombuffer(memory, dtype=dtype).view(entry.shape)

    def __iter__(self) -> Iterator[str]:
        yield from self._files
        yield from self._aliases

    def __len__(self) -> int:
        return len(self._files) + len(self._aliases)

    def _memory(self, path: Path, place: slice) -> memoryview:
        """Some bytes of a file, which is not changed by writing to them. Pages that are theirs alone are given up with
        them; a mapping for each tensor would keep the file open as often."""
        if path not in self._mapped:
            with path.open("rb") as file:
                self._mapped[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        whole = self._mapped[path]
        memory, first = memoryview(whole)[place], -(-place.start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = place.stop // mmap.PAGESIZE * mmap.PAGESIZE - first
        if sys.platform == "linux" and length > 0:  # elsewhere the advice means another thing
            finalize(memory, whole.madvise, mmap.MADV_DONTNEED, first, length).atexit = False
        return memory


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one safetensors file, bit for bit; a tensor under several names is written once.

    Raises:
        WriteError: the disk is full.
        RunError: a tensor that safetensors cannot hold.
    """
    own, aliases = distinct(tensors)
    _write(own, path, {ALIASES: json.dumps(aliases)} if aliases else {})


def save_sharded(
    tensors: Mapping[str, Tensor],
    folder: Path,
    max_bytes: int = MAX_SHARD_BYTES,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write ``model.safetensors``, or shards of at most ``max_bytes`` (10^9 a GB) and their index, as
    transformers does. Names that share a storage are left out but for the first: the model ties them."""
    own, _ = distinct(tensors)
    shards = split(own, max_bytes)
    if len(shards) == 1:
        _write(shards[0], folder / "model.safetensors", metadata)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(shard, folder / file, metadata)
        weight_map |= dict.fromkeys(shard, file)
    sizes = {
        "total_parameters": sum(tensor.numel() for tensor in own.values()),
        "total_size": sum(tensor.nbytes for tensor in own.values()),
    }
    write_json(folder / "model.safetensors.index.json", {"metadata": sizes, "weight_map": weight_map})


def split(tensors: Mapping[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    """The tensors in order, cut into parts of at most ``max_bytes`` each (or of one larger tensor)."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def distinct(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors ready to be written, and ``{name: first name}`` of those that are one tensor twice.

    Tensors that overlap without being equal are each written in full.
    """
    own: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    taken: dict[int, list[tuple[int, int]]] = {}  # byte ranges already claimed, by storage
    for name, tensor in tensors.items():
        key = _identity(tensor)
        if tensor.numel() and key in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        plain = _plain(name, tensor)
        start, end = plain.data_ptr(), plain.data_ptr() + plain.nbytes
        ranges = taken.setdefault(plain.untyped_storage().data_ptr(), [])
        own[name] = plain.clone() if any(start < e and s < end for s, e in ranges) else plain
        ranges.append((start, end))
    return own, aliases


def copied(tensors: Mapping[str, Tensor], live: Collection[int]) -> dict[str, Tensor]:
    """The tensors, with a copy of each that lies in one of the storages at the addresses ``live``. A tensor
    under several names is copied once."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    for tensor in tensors.values():
        if tensor.untyped_storage().data_ptr() in live and _identity(tensor) not in copies:
            copies[_identity(tensor)] = tensor.detach().clone()
    return {name: copies.get(_identity(tensor), tensor) for name, tensor in tensors.items()}


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Equal where two tensors are the same elements of the same memory."""
    return (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


def _plain(name: str, tensor: Tensor) -> Tensor:
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        raise RunError(f"{name} is a {type(tensor).__name__}; only plain tensors can be saved")
    return tensor.detach().cpu().contiguous()


def _write(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata={"format": "pt", **metadata})
    except SafetensorError as error:
        raise WriteError(
            f"cannot write {path}: {error}\n    is the disk full? make room, or lower train.keep_last"
        ) from error
