"""The other end of ``processes``: an interpreter whose children make examples of the rows they are sent."""

from __future__ import annotations

import gc
import json
import os
import sys
from contextlib import suppress
from functools import cache
from io import BufferedIOBase
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

from safetensors.numpy import save

from ptsdk._guard import explain
from ptsdk.data import tokenizer_files as files
from ptsdk.data.columns import to_columns
from ptsdk.data.example import Row
from ptsdk.data.frames import receive, send, stream_of, unpacked
from ptsdk.data.pipeline import Rules, encode_rows
from ptsdk.data.spelling import built
from ptsdk.data.tokenizers import Facts, FastTokenizer, from_folder
from ptsdk.errors import UserError

if TYPE_CHECKING:
    from ptsdk.contracts.dataset import Dataset
    from ptsdk.data.tokenizer import Tokenizer


def serve(*ends: int) -> None:
    """Read the tokenizer, then answer at each of these sockets from a process of its own, until nobody asks there.

    They are forked from this one: a large vocabulary is parsed once, and is once in memory.
    """
    os.dup2(2, 1)  # what a data set prints is no answer
    streams = [stream_of(socket(fileno=end)) for end in ends]
    try:
        tokenizer = _tokenizer(**unpacked(sys.stdin.buffer.read()))
    except (UserError, TypeError, ValueError) as error:
        for stream in streams:
            _answer(stream, {"why": str(error)})
        return
    gc.freeze()  # what is there now is shared, and stays
    for stream in streams:
        if os.fork() == 0:
            for other in streams:
                if other is not stream:
                    other.close()
            with suppress(ConnectionError):  # nobody waits for the answer any more
                _answer_all(stream, tokenizer)
            return
    for stream in streams:
        stream.close()
    _wait_for(len(streams))


def _wait_for(children: int) -> None:
    """End with the first that fails, as a shell would tell it: 128 and the signal."""
    for _ in range(children):
        if status := os.waitstatus_to_exitcode(os.wait()[1]):
            sys.exit(status if status > 0 else 128 - status)


def _answer_all(stream: BufferedIOBase, tokenizer: Tokenizer) -> None:
    _answer(stream, {"why": None})
    while (question := receive(stream)) is not None:
        try:
            arrays, notes = _encoded(tokenizer, **unpacked(question))
        except BaseException as error:  # a third party's code may raise what is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            _answer(stream, {"failed": explain(error)})
            continue
        _answer(stream, notes)
        send(stream, arrays)


def _answer(stream: BufferedIOBase, value: dict[str, Any]) -> None:
    send(stream, json.dumps(value).encode())


def _tokenizer(folder: str, fingerprint: str, facts: dict[str, Any] | None = None) -> Tokenizer:
    if facts:
        return _known(Path(folder), Facts(**facts))
    found = from_folder(Path(folder))
    if found is None or found.fingerprint() != fingerprint:
        raise ValueError("the tokenizer is not the same once it is saved and read")
    return found


def _known(folder: Path, facts: Facts) -> Tokenizer:
    """One whose text is all of it; to write that out again and compare would take as long as to parse it."""
    config = files.read_config(folder)
    text = (folder / "tokenizer.json").read_bytes()
    tokenizer = FastTokenizer.known(text, facts, config, files.read_templates(folder, config))
    tokenizer.encode("")  # parses it now: until this one is ready, others work
    return tokenizer


def _encoded(
    tokenizer: Tokenizer, dataset: dict[str, Any], rules: dict[str, Any], rows: list[Any]
) -> tuple[bytes, dict[str, Any]]:
    encoded = encode_rows(_dataset(json.dumps(dataset)), (Row(*fields) for fields in rows), tokenizer, Rules(**rules))
    arrays, notes = to_columns(encoded)
    return save(arrays), notes


@cache
def _dataset(words: str) -> Dataset:
    return built(**json.loads(words))
