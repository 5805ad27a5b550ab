"""What a format of checkpoints has to do."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from ptsdk.contracts.checkpoint import Checkpoint, CheckpointFormat
from ptsdk.errors import UserError
from ptsdk.testing.checkpoints import tiny_checkpoint
from ptsdk.testing.suite import ComponentSuite


class CheckpointFormatSuite(ComponentSuite):
    """For the kind ``checkpoint-format``. Override ``sample`` where the format is not a folder as
    transformers writes it."""

    kind: ClassVar[str] = "checkpoint-format"

    def sample(self, folder: Path) -> Path | None:
        """A sound checkpoint in this format, written below ``folder``; None where there is none."""
        source = tiny_checkpoint(folder / "source")
        return source.path if self.format.matches(source.path) else self.in_the_format(source)

    def in_the_format(self, source: Checkpoint) -> Path | None:
        """``source`` in this format; None where its spec does not support ``write``, or it cannot hold the model."""
        if "write" not in self.spec.supports:
            return None
        path = self.folder / f"written{self.spec.suffixes[0]}"
        tensors = {name: source.tensor(name) for name in source.names()}
        try:
            self.format.write(path, tensors, source.config, source.tokenizer(), {})
        except UserError:
            return None
        return path

    @property
    def format(self) -> CheckpointFormat:
        """The component."""
        made: CheckpointFormat = self.make()
        return made

    def given(self) -> Path:
        """The sample, without which what is asked of one is skipped."""
        path = self.sample(self.folder)
        if path is None:
            pytest.skip("there is no sample of this format: override `sample` in a suite of your own")
        return path

    def opened(self) -> Checkpoint:
        """The sample, opened."""
        return self.format.open(self.given())

    def test_knows_its_own(self) -> None:
        """``matches`` answers for anything without raising: no for what is not there, empty, or of another kind."""
        (self.folder / "empty").mkdir()
        (self.folder / "text.txt").write_text("not a checkpoint", encoding="utf-8")
        (self.folder / "nothing").touch()
        for name in ("empty", "text.txt", "nothing", "not-there"):
            assert not self.format.matches(self.folder / name), f"it takes {name} for its own"
        path = self.sample(self.folder)
        assert path is None or self.format.matches(path), "it does not know its own sample"

    def test_declares_suffixes(self) -> None:
        """Its spec says what its files end with; ``""`` is a folder."""
        assert self.spec.suffixes, "its spec has no `suffixes`"

    def test_tensors_are_what_is_listed(self) -> None:
        """Every name has a shape, and a tensor of that shape on the CPU; config.json's keys are there."""
        checkpoint = self.opened()
        names = list(checkpoint.names())
        assert names and len(set(names)) == len(names), "no names, or one twice"
        assert checkpoint.config.get("model_type"), "its config names no model_type"
        for name in names:
            tensor = checkpoint.tensor(name)
            shape = tuple(tensor.shape)
            assert shape == tuple(checkpoint.shape(name)), (
                f"{name} is {shape}, its shape is told as {checkpoint.shape(name)}"
            )
            assert tensor.device.type == "cpu" and tensor.is_floating_point(), f"{name} is {tensor.dtype} elsewhere"

    def test_what_is_written_is_read(self) -> None:
        """Where its spec supports ``write``: the same names, values and architecture, as one of its own."""
        source = tiny_checkpoint(self.folder / "source")
        path = self.in_the_format(source)
        if path is None:
            pytest.skip("it does not write, or not core's small model")
        tensors = {name: source.tensor(name) for name in source.names()}
        assert self.format.matches(path), "it does not know what it wrote"
        again = self.format.open(path)
        assert set(again.names()) == set(tensors), f"names differ: {sorted(set(again.names()) ^ set(tensors))[:5]}"
        lost = [name for name, tensor in tensors.items() if not close(again.tensor(name), tensor)]
        assert not lost, f"{', '.join(lost[:5])} came back with other values"
        assert again.config["architectures"] == source.config["architectures"], "it is of another architecture now"

    def test_damage_is_told(self) -> None:
        """A file cut in half is a UserError at the latest when its tensors are asked for."""
        path = self.given()
        weights = path if path.is_file() else next(iter(sorted(path.glob("*.safetensors"))), None)
        assert weights is not None, "the sample is a folder without weights: override this test and say so"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        with pytest.raises(UserError):
            checkpoint = self.format.open(path)
            for name in checkpoint.names():
                checkpoint.tensor(name)


def close(a: Tensor, b: Tensor) -> bool:
    """Equal but for what a format that stores fewer bits rounds away."""
    return bool(torch.allclose(a.float(), b.float(), rtol=1e-2, atol=1e-3))
