"""Same machine, same lock, same weights, bit for bit, for every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ptsdk.cli.main import main
from tests.matrix.cells import METHODS, Cell, prepare, same_bits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    prepare(folder, "llama")
    return folder


def written(folder: Path, cell: Cell) -> tuple[Path, Path]:
    """The job of a cell without the callback that kills it, and where it runs."""
    out = folder / str(cell)
    job: dict[str, Any] = {**cell.job(out), "callbacks": []}
    path = folder / f"{cell}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path, out / "run"


@pytest.mark.parametrize("update", ["full", "lora"])
@pytest.mark.parametrize("method", METHODS)
def test_a_lock_gives_the_same_bits_again(folder: Path, method: str, update: str) -> None:
    job, first = written(folder, Cell("llama", method, update, "single"))
    second = first.with_name("again")
    assert main(["run", str(job)]) == 0
    torch.manual_seed(99)  # what a process did before must not matter
    assert main(["run", str(job), f"output_dir={second}", "--locked", str(first / "lock.json")]) == 0
    same_bits(first, second)
    assert main(["diff", str(first), str(second)]) == 0
    third = first.with_name("other")
    assert main(["run", str(job), f"output_dir={third}", "train.seed=2"]) == 0
    assert main(["diff", str(first), str(third)]) == 1
