"""Messages between processes over a socket: the length of each, then its bytes."""

from __future__ import annotations

import pickle
from io import BufferedIOBase, BytesIO
from socket import socket
from typing import Any, NoReturn

SIZE = 8
"""Bytes of a length, little-endian."""


def stream_of(end: socket) -> BufferedIOBase:
    """Read from it and write to it; it is closed with the stream."""
    with end:
        return end.makefile("rwb")


def send(stream: BufferedIOBase, *messages: bytes) -> None:
    """Write messages, each for one ``receive``."""
    for message in messages:
        stream.write(len(message).to_bytes(SIZE, "little"))
        stream.write(message)
    stream.flush()


def receive(stream: BufferedIOBase) -> bytes | None:
    """The next message; None where the other side has ended, also in the middle of one."""
    try:
        size = stream.read(SIZE)
        wanted = int.from_bytes(size, "little")
        message = stream.read(wanted) if len(size) == SIZE else b""
    except ConnectionError:
        return None
    return message if len(size) == SIZE and len(message) == wanted else None


class _Plain(pickle.Pickler):
    """Takes what Python itself is made of, and nothing that a class would have to be found for."""

    def reducer_override(self, value: object) -> NoReturn:
        raise pickle.PicklingError(type(value).__name__)


def packed(value: Any) -> bytes | None:
    """``value`` for ``unpacked`` in another process; None of what is not plain all through, or nested too deep."""
    written = BytesIO()
    try:
        _Plain(written, pickle.HIGHEST_PROTOCOL).dump(value)
    except (pickle.PicklingError, RecursionError):
        return None
    return written.getvalue()


def unpacked(message: bytes) -> Any:
    """The inverse of ``packed``; for messages of a process that trusts this one as itself."""
    return pickle.loads(message)
