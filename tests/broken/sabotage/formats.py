"""Formats of checkpoints: safetensors, but."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ptsdk.builtin.formats import Safetensors, SafetensorsFolder
from ptsdk.errors import UserError


class TakesAll(Safetensors):
    def matches(self, path: Path) -> bool:
        return True


class TurnedFolder(SafetensorsFolder):
    def shape(self, name: str) -> tuple[int, ...]:
        return super().shape(name)[::-1]


class Turned(Safetensors):
    def open(self, path: Path) -> SafetensorsFolder:
        return TurnedFolder(path)


class HushingFolder(SafetensorsFolder):
    def names(self) -> Iterator[str]:
        try:
            return super().names()
        except UserError:
            return iter(())


class Hushing(Safetensors):
    """A damaged file is an empty one."""

    def open(self, path: Path) -> SafetensorsFolder:
        return HushingFolder(path)


class NoSuffix(Safetensors):
    pass


class LosesOne(Safetensors):
    def write(self, path: Path, tensors: Mapping[str, Tensor], *rest: Any) -> None:
        super().write(path, {name: tensors[name] for name in list(tensors)[1:]}, *rest)
