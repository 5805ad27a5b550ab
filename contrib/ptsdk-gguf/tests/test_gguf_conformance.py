"""What every checkpoint format has to do, on a file with tensors and a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ptsdk.testing import CheckpointFormatSuite


class TestGGUF(CheckpointFormatSuite):
    component = "gguf"

    @pytest.fixture(autouse=True)
    def _writer(self, write_llama: Any, llama: Any, sentencepiece_fields: Any) -> None:
        self.fields, self.write = sentencepiece_fields, write_llama
        self.model = llama(len(sentencepiece_fields["tokenizer.ggml.tokens"]))

    def sample(self, folder: Path) -> Path:
        path: Path = self.write(folder / "m.gguf", self.model, self.fields)
        return path
