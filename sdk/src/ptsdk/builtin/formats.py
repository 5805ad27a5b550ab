"""The layout that transformers writes: config.json, safetensors, tokenizer files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ptsdk.checkpoint.export import export_model
from ptsdk.checkpoint.inside import refuse_links_out
from ptsdk.checkpoint.sources import CONVERT, PICKLES
from ptsdk.checkpoint.tensors import TensorFiles, read_header
from ptsdk.contracts.checkpoint import Checkpoint, CheckpointFormat
from ptsdk.errors import Problem, UserError

if TYPE_CHECKING:
    from ptsdk.contracts.tokenizer import Tokenizer

MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Safetensors(CheckpointFormat):
    """A folder with config.json and model.safetensors, or its shards and their index."""

    def matches(self, path: Path) -> bool:
        """A folder with a config.json."""
        return (path / "config.json").is_file()

    def open(self, path: Path) -> SafetensorsFolder:
        """Read config.json; the weights' headers are read when they are asked for.

        Raises:
            UserError: config.json is not a JSON object, or a link leads out of the folder.
        """
        refuse_links_out(path)
        return SafetensorsFolder(path)

    def write(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        config: Mapping[str, Any],
        tokenizer: Tokenizer | None,
        generation_config: Mapping[str, Any],
    ) -> None:
        """See ``CheckpointFormat.write``."""
        export_model(path, tensors, config, tokenizer, generation_config)


class SafetensorsFolder(Checkpoint):
    """An opened folder. Weights are found and checked at the first question about them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = read_object(path / "config.json")

    @cached_property
    def tensors(self) -> TensorFiles:
        """Every tensor, read lazily.

        Raises:
            UserError: no weights, a pickle, a missing shard, a truncated or malformed file, or an
                index that points out of the folder.
        """
        if (self.path / INDEX).is_file():
            return TensorFiles(indexed_files(self.path))
        file = self.path / MODEL
        if file.is_file():
            return TensorFiles(dict.fromkeys(read_header(file).entries, file))
        pickles = sorted(file.name for file in self.path.iterdir() if file.suffix in PICKLES)
        if pickles:
            raise UserError(f"{self.path} holds its weights as a pickle ({pickles[0]})", hint=CONVERT)
        raise UserError(f"{self.path} has no weights: neither {MODEL} nor {INDEX}", hint="fetch the whole checkpoint")

    def names(self) -> Iterator[str]:
        """The names in the file or its index."""
        return iter(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """From the header."""
        return self.tensors.shape(name)

    def tensor(self, name: str) -> Tensor:
        """Memory-mapped."""
        return self.tensors[name]

    def tokenizer(self) -> Tokenizer | None:
        """From the folder's tokenizer files."""
        from ptsdk.checkpoint.tokenizers import from_folder

        tokenizer: Tokenizer | None = from_folder(self.path)
        return tokenizer

    def generation_config(self) -> dict[str, Any]:
        """The keys of generation_config.json."""
        file = self.path / "generation_config.json"
        return read_object(file) if file.is_file() else {}


def indexed_files(folder: Path) -> dict[str, Path]:
    """For each tensor of a sharded checkpoint the file that holds it.

    Raises:
        UserError: malformed, files missing (all are named), or names that are not plain file names.
    """
    index = folder / INDEX
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(Problem("weight_map must map tensor names to file names", file=str(index)))
    shards = sorted(set(weight_map.values()))
    if unsafe := [name for name in shards if Path(name).name != name or "\\" in name or name in ("", ".", "..")]:
        raise UserError(Problem(f"{unsafe[0]!r} is not a file of this folder; nothing was read", file=str(index)))
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise UserError(
            f"{folder} lacks {len(missing)} of {len(shards)} shards: {', '.join(missing)}",
            hint="fetch the whole checkpoint",
        )
    return {name: folder / file for name, file in weight_map.items()}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: it is not one; the message has the line.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(Problem(f"not JSON: {error.msg}", file=str(path), line=error.lineno)) from error
    except UnicodeDecodeError as error:
        raise UserError(Problem(f"not UTF-8: {error.reason}", file=str(path))) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
        raise UserError(Problem(f"cannot be read: {error}", file=str(path))) from error
    if not isinstance(value, dict):
        raise UserError(Problem("expected a JSON object", file=str(path)))
    return value
