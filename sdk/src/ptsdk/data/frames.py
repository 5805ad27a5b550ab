"""Messages over a pipe: the length of each, then its bytes."""

from __future__ import annotations

from typing import IO

SIZE = 8
"""Bytes of a length, little-endian."""


def send(stream: IO[bytes], *messages: bytes) -> None:
    """Write messages, each for one ``receive``."""
    for message in messages:
        stream.write(len(message).to_bytes(SIZE, "little"))
        stream.write(message)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes | None:
    """The next message; None where the other side has ended, also in the middle of one."""
    size = stream.read(SIZE)
    if len(size) < SIZE:
        return None
    wanted = int.from_bytes(size, "little")
    message = stream.read(wanted)
    return message if len(message) == wanted else None
