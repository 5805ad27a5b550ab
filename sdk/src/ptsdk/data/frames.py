"""Messages between processes over a socket: the length of each, then its bytes."""

from __future__ import annotations

import json
from io import BufferedIOBase
from socket import socket
from typing import Any

SIZE = 8
"""Bytes of a length, little-endian."""
PLAIN = frozenset({str, int, float, bool, type(None)})


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


def packed(value: Any) -> bytes | None:
    """``value`` as JSON; None of what would not come out of it as it is, or is nested too deep."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):  # a number of thousands of digits, or nesting without end
        return None
    return text.encode() if _is_plain(value) else None


def unpacked(message: bytes) -> Any:
    """The inverse of ``packed``."""
    return json.loads(message)


def _is_plain(value: Any) -> bool:
    """Whether it is made of nothing but what JSON has."""
    left = [value]
    while left:
        one = left.pop()
        kind = type(one)
        if kind is dict:
            if not all(type(key) is str for key in one):
                return False
            one, kind = list(one.values()), list
        if kind is list:
            if not PLAIN.issuperset(map(type, one)):
                left += one
        elif kind not in PLAIN:
            return False
    return True
