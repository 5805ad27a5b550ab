"""What trains, and that nothing else has moved after a real run."""

from __future__ import annotations

from pathlib import Path

import ptsdk
import torch

from ptsdk_example_adapter.adapter import ExampleAdapter

JOB = Path(__file__).parents[1] / "example" / "job.yaml"


def test_only_norms_and_biases_move(tmp_path: Path) -> None:
    def trained(name: str, lr: float) -> torch.nn.Module:
        output = [f"output_dir={tmp_path / name}", f"optimizer.lr={lr}"]
        return ptsdk.load_model(str(ptsdk.run(JOB, overrides=output).final_dir), dtype="float32")

    before, after = trained("before", 0.0), trained("after", 0.1)
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new) == (old.ndim > 1), name


def test_the_base_is_gone() -> None:
    assert not ExampleAdapter.keeps_base
