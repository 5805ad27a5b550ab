"""How parameters get their storage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ptsdk.checkpoint.tensors import TensorFiles, save_tensors
from ptsdk.checkpoint.weights import fill

CPU = torch.device("cpu")


@pytest.fixture
def stored(tmp_path: Path) -> TensorFiles:
    save_tensors({"weight": torch.arange(6.0).reshape(2, 3)}, tmp_path / "m.safetensors")
    return TensorFiles.of(tmp_path / "m.safetensors")


def linear(trains: bool) -> nn.Linear:
    module = nn.Linear(3, 2, bias=False, device="meta")
    module.requires_grad_(trains)
    return module


@pytest.mark.parametrize("reference_first", [False, True])
def test_a_reference_from_the_same_file_does_not_follow_what_trains(stored: TensorFiles, reference_first: bool) -> None:
    policy, reference = linear(True), linear(False)
    for module in (reference, policy) if reference_first else (policy, reference):
        fill(module, stored, CPU, torch.float32)
    with torch.no_grad():
        policy.weight.add_(1)
    assert reference.weight.equal(torch.arange(6.0).reshape(2, 3))
    assert policy.weight.requires_grad and not reference.weight.requires_grad


def test_what_has_storage_keeps_it(stored: TensorFiles) -> None:
    module = nn.Linear(3, 2, bias=False)
    before = module.weight
    fill(module, stored, CPU, torch.bfloat16)
    assert module.weight is before and module.weight.dtype == torch.float32
    assert module.weight.equal(stored["weight"])
