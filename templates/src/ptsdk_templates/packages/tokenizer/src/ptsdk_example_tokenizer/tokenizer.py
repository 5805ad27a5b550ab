"""The tokenizer itself, imported when a job says ``tokenizer: {use: example-tokenizer, ...}``."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.contracts.tokenizer import Tokenizer, TokenizerSource
from ptsdk.data.tokenizers import FastTokenizer
from pydantic import Field
from tokenizers import Regex, decoders, models, pre_tokenizers


class ExampleTokenizer(TokenizerSource):
    """One id a character; what is not of the alphabet is ``<unk>``."""

    alphabet: str = Field("abcdefghijklmnopqrstuvwxyz .,", min_length=1, description="the characters, in order of id")

    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        """Over the ``tokenizers`` library, whose tokenizer.json transformers reads as it is."""
        pieces = ["<unk>", "<eos>", *dict.fromkeys(self.alphabet)]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        return FastTokenizer(backend, {"unk_token": "<unk>", "eos_token": "<eos>"})
