"""GGUF files as checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ptsdk.contracts.checkpoint import Checkpoint, CheckpointFormat
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.errors import Problem, UserError
from ptsdk_gguf.architecture import Architecture, model_config, tensor_names
from ptsdk_gguf.gemma3 import GEMMA3
from ptsdk_gguf.header import MAGIC, Header, read_header
from ptsdk_gguf.llama import LLAMA
from ptsdk_gguf.tokenizer import read_tokenizer
from ptsdk_gguf.weights import read_tensor

ARCHITECTURES: dict[str, Architecture] = {"gemma3": GEMMA3, "llama": LLAMA}
"""Model families by llama.cpp's name (``general.architecture``)."""


class GGUFCheckpoint(Checkpoint):
    """One GGUF file under Hugging Face names, each tensor unpacked when it is asked for."""

    def __init__(self, header: Header, architecture: Architecture) -> None:
        self.path = header.path
        self._header, self._architecture = header, architecture
        self._names = tensor_names(header, architecture)
        self.config = model_config(header, architecture)

    def names(self) -> Iterator[str]:
        """See ``Checkpoint.names``."""
        return iter(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """See ``Checkpoint.shape``."""
        return self._header.tensors[self._names[name]].shape

    def tensor(self, name: str) -> Tensor:
        """See ``Checkpoint.tensor``."""
        stored = read_tensor(self.path, self._header.tensors[self._names[name]])
        return self._architecture.undo(name, stored, self.config)

    def tokenizer(self) -> Tokenizer | None:
        """See ``Checkpoint.tokenizer``."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        return read_tokenizer(self._header, self._architecture.pieces)

    def generation_config(self) -> dict[str, Any]:
        """The ids that start and end text."""
        return {key: value for key, value in self.config.items() if key.endswith("_token_id")}


class GGUF(CheckpointFormat):
    """The ``gguf`` format."""

    def matches(self, path: Path) -> bool:
        """Whether ``path`` is a file that starts as GGUF files do."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC

    def open(self, path: Path) -> GGUFCheckpoint:
        """See ``CheckpointFormat.open``."""
        header = read_header(path)
        architecture = ARCHITECTURES.get(header.architecture)
        if architecture is None:
            message = f"general.architecture = {header.architecture!r} is not read; {', '.join(ARCHITECTURES)} are"
            raise UserError(Problem(message, "take the safetensors checkpoint of this model", str(path)))
        return GGUFCheckpoint(header, architecture)
