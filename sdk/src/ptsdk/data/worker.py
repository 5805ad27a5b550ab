"""The other end of ``processes``: an interpreter that makes examples of the rows it is sent."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from safetensors.numpy import save

from ptsdk._guard import explain
from ptsdk.data import tokenizer_files as files
from ptsdk.data.columns import to_columns
from ptsdk.data.example import Row
from ptsdk.data.frames import receive, send
from ptsdk.data.pipeline import Rules, encode_rows
from ptsdk.data.spelling import built
from ptsdk.data.tokenizers import Facts, FastTokenizer, from_folder
from ptsdk.errors import UserError

if TYPE_CHECKING:
    from ptsdk.contracts.dataset import Dataset
    from ptsdk.data.tokenizer import Tokenizer


def serve() -> None:
    """Answer tasks until the process that asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks is interrupted too, and ends this one
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a data set prints is no answer
    begin = json.loads(receive(questions) or b"{}")
    try:
        tokenizer = _tokenizer(**begin)
    except (UserError, TypeError, ValueError) as error:
        _answer(answers, {"why": str(error)})
        return
    _answer(answers, {"why": None})
    while (question := receive(questions)) is not None:
        try:
            arrays, notes = _encoded(tokenizer, **json.loads(question))
        except BaseException as error:  # a third party's code may raise what is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            _answer(answers, {"failed": explain(error)})
            continue
        _answer(answers, notes)
        send(answers, arrays)


def _answer(answers: IO[bytes], value: dict[str, Any]) -> None:
    send(answers, json.dumps(value).encode())


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
