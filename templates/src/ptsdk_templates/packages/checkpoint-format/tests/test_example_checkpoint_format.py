"""An archive, written and opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptsdk.errors import UserError
from ptsdk.testing import CheckpointFormatSuite

from ptsdk_example_checkpoint_format.format import ExampleFormat


class TestConforms(CheckpointFormatSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-checkpoint-format/example-checkpoint-format"  # dist/name


def archive(folder: Path, config: str) -> Path:
    arrays: dict[str, Any] = {"model.norm.weight": np.array([1.0, 2.0], np.float32)}
    np.savez(folder / "weights.npz", **arrays)
    (folder / "config.json").write_text(config, "utf-8")
    return folder / "weights.npz"


def test_config_names_shapes_and_values(tmp_path: Path) -> None:
    path = archive(tmp_path, json.dumps({"architectures": ["TinyForCausalLM"]}))
    assert ExampleFormat().matches(path)
    opened = ExampleFormat().open(path)
    assert opened.config["architectures"] == ["TinyForCausalLM"]
    assert list(opened.names()) == ["model.norm.weight"]
    assert opened.shape("model.norm.weight") == (2,)
    assert opened.tensor("model.norm.weight").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("config", ["[]", "{"])
def test_a_damaged_config_is_named(config: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        ExampleFormat().open(archive(tmp_path, config))


def test_other_files_are_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    assert not ExampleFormat().matches(tmp_path / "text.npz")
    assert not ExampleFormat().matches(tmp_path)
