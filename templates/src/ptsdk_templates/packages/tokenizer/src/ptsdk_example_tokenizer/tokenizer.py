"""The tokenizer itself, imported when a job says ``tokenizer: {use: example-tokenizer, path: train.txt}``."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.contracts.tokenizer import Tokenizer, TokenizerSource
from ptsdk.data.tokenizers import FastTokenizer
from ptsdk.errors import UserError
from pydantic import Field
from tokenizers import decoders, models, pre_tokenizers, trainers


class ExampleTokenizer(TokenizerSource):
    """Byte pairs (arXiv:1508.07909), learned from a text when the run starts."""

    path: str | None = Field(None, description="a text file to learn from, relative to the job file; none: plain bytes")
    size: int = Field(300, ge=257, description="ids at most: 256 bytes, the end of text, and what is learned")

    def files(self, base: Path) -> list[Path]:
        """What will be read. `ptsdk check` asks, so that a missing file is a fault of the job."""
        paths = [] if self.path is None else [base / Path(self.path).expanduser()]
        if missing := [path for path in paths if not path.is_file()]:
            raise UserError(f"no such file: {missing[0]}", hint="paths are relative to the job file")
        return paths

    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        """Over the ``tokenizers`` library, whose tokenizer.json transformers reads as it is. All 256 bytes are
        there, so no text is lost; the same text gives the same ids on every process of a run."""
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.size, initial_alphabet=alphabet, special_tokens=["<eos>"], show_progress=False
        )
        backend.train_from_iterator([path.read_text("utf-8") for path in self.files(base)], trainer)
        return FastTokenizer(backend, {"eos_token": "<eos>"})
