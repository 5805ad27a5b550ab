"""The format itself, imported when a path is to be opened as a checkpoint."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ptsdk.contracts.checkpoint import Checkpoint, CheckpointFormat
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.errors import UserError
from torch import Tensor

BESIDE = "put the model's config.json beside its weights"


class ExampleFormat(CheckpointFormat):
    """``weights.npz`` with an array a tensor, and ``config.json`` beside it."""

    def matches(self, path: Path) -> bool:
        """Told from the name and the first bytes alone: every format is asked about every path."""
        return path.suffix == ".npz" and path.is_file() and zipfile.is_zipfile(path)

    def open(self, path: Path) -> ExampleArchive:
        """Opening reads no weights.

        Raises:
            UserError: there is no config.json beside it, or it is not a JSON object.
        """
        return ExampleArchive(path)


class ExampleArchive(Checkpoint):
    """An opened archive; ``tensor`` reads one array."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = read_config(path.with_name("config.json"))
        # Pickles run code when they are read. A checkpoint comes from anywhere, so they stay off.
        self._arrays = np.load(path, allow_pickle=False)

    def names(self) -> Iterator[str]:
        """Hugging Face names."""
        return iter(self._arrays.files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""
        return tuple(self._arrays[name].shape)

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        return torch.from_numpy(self._arrays[name])

    def tokenizer(self) -> Tokenizer | None:
        """The archive carries none: a job names one."""
        return None


def read_config(path: Path) -> dict[str, Any]:
    """The object in config.json.

    Raises:
        UserError: no such file, or something else in it.
    """
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {error}", hint="put the model's config.json beside its weights"
        ) from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no JSON object", hint=BESIDE)
    return config
