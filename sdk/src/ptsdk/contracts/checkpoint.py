"""Where weights come from: sources fetch a URL, formats open what was fetched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ptsdk.contracts.component import Component

if TYPE_CHECKING:
    from ptsdk.contracts.tokenizer import Tokenizer


class Checkpoint(ABC):
    """An opened checkpoint: its config.json, its tensors by Hugging Face name, its tokenizer.

    Opening reads no weights; ``tensor`` reads one, memory-mapped where the format allows it.
    """

    path: Path
    config: dict[str, Any]
    """The keys of config.json (made from the file's own metadata where the format has none)."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Every tensor's name, as in the family's safetensors checkpoints."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor, without reading it."""

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU, in the dtype of the file (float32 where it is quantised)."""

    @abstractmethod
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer the checkpoint carries, if any."""

    def generation_config(self) -> dict[str, Any]:
        """The keys of generation_config.json, empty where there is none."""
        return {}


class CheckpointSource(Component):
    """Fetches the URLs of some schemes to a local file or folder."""

    kind: ClassVar[str] = "checkpoint-source"
    example_url: ClassVar[str] = ""
    """Something that is there without a network, for the conformance suite."""

    @abstractmethod
    def fetch(self, url: str, *, weights: bool = True) -> Path:
        """The local path of ``url`` (the part after ``#`` already cut off), downloaded if need be.

        Args:
            weights: False when only config.json and the tokenizer are wanted.

        Raises:
            UserError: no such place, no access, or bytes that do not match their hash.
        """


class CheckpointFormat(Component):
    """Opens local files or folders of some suffix."""

    kind: ClassVar[str] = "checkpoint-format"

    @abstractmethod
    def matches(self, path: Path) -> bool:
        """Whether ``path`` is of this format, told from names and magic bytes alone."""

    @abstractmethod
    def open(self, path: Path) -> Checkpoint:
        """Open it.

        Raises:
            UserError: truncated, malformed, or unsafe (paths that leave the folder).
        """

    def write(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        config: Mapping[str, Any],
        tokenizer: Tokenizer | None,
        generation_config: Mapping[str, Any],
    ) -> None:
        """Write a model to ``path``, complete or not at all, for what ``open`` reads back. Only formats
        whose spec supports ``write`` are asked to.

        Args:
            path: must not exist.
            tensors: plain weights under their Hugging Face names, read one at a time.
            config: the keys of config.json.
            tokenizer: None where the model has none.
            generation_config: the keys of generation_config.json, empty where there are none.

        Raises:
            UserError: this format cannot hold such a model.
            WriteError: the disk is full, or similar.
        """
        raise NotImplementedError
