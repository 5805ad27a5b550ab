"""Large tokenizers that were parsed once, kept in the cache folder.

<cache>/tokenizers/<key>/tokenizer.json   the pipeline as it is saved
                         facts.json       what is asked of it without its vocabulary
                         manifest.json    size and SHA-256 of both

A run whose examples are kept too asks for no more, and parses no vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import tokenizers

from ptsdk.checkpoint.environment import source_digest
from ptsdk.checkpoint.files import sha256_file, write_json
from ptsdk.checkpoint.kept import kept
from ptsdk.data import tokenizer_files as files
from ptsdk.data.tokenizer import Tokenizer
from ptsdk.data.tokenizers import Facts, FastTokenizer
from ptsdk.data.tokenizers import from_folder as parsed

FOLDER, PIPELINE, FACTS = "tokenizers", "tokenizer.json", "facts.json"
LARGE = 2**20
"""Bytes of a tokenizer.json from which on it is kept: a smaller one is parsed in a moment."""


def from_folder(folder: Path) -> Tokenizer | None:
    """The tokenizer whose files lie in ``folder``, None where there are none. The vocabulary of one that was read
    here before is parsed when it is used: the same files were whole then.

    Raises:
        UserError: a file is damaged, or of a kind that has to be converted first.
    """
    file = folder / PIPELINE
    if not file.is_file() or file.stat().st_size < LARGE:
        return parsed(folder)

    def read(entry: Path) -> Tokenizer | None:
        config = files.read_config(folder)
        facts = Facts(**json.loads((entry / FACTS).read_text(encoding="utf-8")))
        templates = files.read_templates(folder, config)
        return FastTokenizer.known((entry / PIPELINE).read_bytes(), facts, config, templates)

    return kept(FOLDER, lambda: key_of(folder), lambda: parsed(folder), read, _write, _is_fast)


def key_of(folder: Path) -> str:
    """A hash of all that decides what a folder's tokenizer is: its files, the library, and the code that reads them."""
    found = sorted([*folder.glob("*.json"), *folder.rglob("*.jinja")])
    content = {file.relative_to(folder).as_posix(): sha256_file(file) for file in found if file.is_file()}
    made_of = [content, tokenizers.__version__, source_digest("ptsdk")]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def _is_fast(tokenizer: Tokenizer | None) -> bool:
    return isinstance(tokenizer, FastTokenizer)


def _write(tokenizer: Tokenizer | None, entry: Path) -> None:
    assert isinstance(tokenizer, FastTokenizer)
    (entry / PIPELINE).write_text(tokenizer.to_json(), encoding="utf-8")
    write_json(entry / FACTS, tokenizer.facts()._asdict())
