"""A checkpoint gives back the model, the optimizer, the state and every generator, bit for bit."""

from __future__ import annotations

import random
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing._internal.two_tensor import TwoTensor

from ptsdk.checkpoint.files import WriteError, verify_manifest
from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.checkpoint.state import capture_rng, draft_checkpoint, load_checkpoint, restore_rng
from ptsdk.errors import RunError, UserError


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One step with dropout and with data from all three generators."""
    x = torch.randn(4, 6) + random.random() + np.random.rand()
    loss = torch.nn.functional.dropout(model(x), 0.5).square().sum()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def test_a_resumed_run_is_bit_exact(tmp_path: Path) -> None:
    """Eight steps against four, a save, a new model and optimizer, and four more."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(4):
        step(model, optimizer)
    state = {"rng": capture_rng(), "lr": 1 / 3}
    path = draft_checkpoint(4, dict(model.state_dict()), optimizer.state_dict(), state).write(RunDir(tmp_path))
    for _ in range(4):
        step(model, optimizer)

    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    contents = load_checkpoint(path)
    assert contents.step == 4 and contents.model is not None and contents.state["lr"] == 1 / 3
    again = torch.nn.Linear(6, 3)
    again.load_state_dict(dict(contents.model))
    resumed = torch.optim.AdamW(again.parameters(), lr=0.1)
    resumed.load_state_dict(contents.optimizer_state())
    assert restore_rng(contents.state["rng"]) == []
    for _ in range(4):
        step(again, resumed)
    assert torch.equal(again.weight, model.weight) and torch.equal(again.bias, model.bias)
    for ours, theirs in zip(resumed.state.values(), optimizer.state.values(), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_every_generator_continues() -> None:
    np.random.standard_normal()  # leaves a cached second draw behind
    random.gauss(0, 1)

    def draws() -> list[float]:
        return [
            random.gauss(0, 1),
            random.random(),
            np.random.standard_normal(),
            np.random.rand(),
            torch.rand(()).item(),
        ]

    state = capture_rng()
    first = draws()
    assert draws() != first
    restore_rng(state)
    assert draws() == first


def test_what_is_written_later_is_what_was_there(tmp_path: Path) -> None:
    """Of memory that training writes to; what was gathered for the checkpoint alone is not copied again."""
    weight, gathered, kept = torch.zeros(4), torch.zeros(4), {"rows": [torch.zeros(4)], "seen": [1]}
    draft = draft_checkpoint(3, {"w": weight, "tied": weight, "own": gathered}, {"m": weight[2:]}, {"method": kept})
    apart = draft.apart({weight.untyped_storage().data_ptr()})
    for tensor in (weight, kept["rows"][0]):
        tensor += 1  # type: ignore[misc]
    kept["seen"].append(2)
    assert apart.model["own"] is gathered and apart.model["tied"] is apart.model["w"]
    contents = load_checkpoint(apart.write(RunDir(tmp_path)))
    assert contents.model is not None and not any(tensor.any() for tensor in contents.model.values())
    assert not contents.optimizer_state()["m"].any() and not contents.state["method"]["rows"][0].any()
    assert contents.state["method"]["seen"] == [1]


def test_a_missing_cuda_device_is_told() -> None:
    state = {**capture_rng(), "cuda": ["AAAA"] * (torch.cuda.device_count() + 1)}
    assert "CUDA devices" in restore_rng(state)[0]


def test_an_adapter_has_a_folder_of_its_own(tmp_path: Path) -> None:
    run = RunDir(tmp_path)

    def write(tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
        (folder / "adapter_config.json").write_text("{}")

    path = draft_checkpoint(1, {}, {}, {}, write).write(run)
    contents = load_checkpoint(path)
    assert contents.model is None and contents.adapter == path / "adapter"
    assert sorted(p.name for p in path.iterdir()) == ["adapter", "manifest.json", "optimizer.safetensors", "state.json"]
    (contents.adapter / "adapter_config.json").unlink()
    assert verify_manifest(path) == ["adapter/adapter_config.json is missing"]


def test_weights_are_plain_safetensors_and_the_lock_travels_along(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text('{"format": 1}')
    path = draft_checkpoint(1, {"w": torch.arange(3)}, {}, {}).write(RunDir(tmp_path))
    assert torch.equal(load_file(path / "model.safetensors")["w"], torch.arange(3))
    assert load_checkpoint(path).lock == {"format": 1}
    assert not [p for p in path.rglob("*") if p.suffix in (".pt", ".bin", ".pkl")]


def test_what_it_was_made_by_is_known_where_its_optimizer_cannot_be_made(tmp_path: Path) -> None:
    """A job with another optimizer is told that it has another; its process may not know the tensors of the old."""
    (tmp_path / "lock.json").write_text('{"format": 1}')
    state = {"m": TwoTensor(torch.zeros(2), torch.ones(2))}
    path = draft_checkpoint(1, {"w": torch.zeros(1)}, state, {}).write(RunDir(tmp_path))
    text = (path / "state.json").read_text()
    assert "TwoTensor" in text
    (path / "state.json").write_text(text.replace("TwoTensor", "Unheard"))
    contents = load_checkpoint(path)
    assert contents.lock == {"format": 1}
    with pytest.raises(UserError, match="which nothing in this job defines"):
        contents.optimizer_state()


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        path = draft_checkpoint(1, {"w": torch.tensor(value)}, {}, {}).write(RunDir(tmp_path))
    model = load_checkpoint(path).model
    assert model is not None and model["w"] == 2
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    draft_checkpoint(1, {"w": torch.zeros(10)}, {}, {}).write(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(WriteError, match="cannot write"):
            draft_checkpoint(2, {"w": torch.zeros(100_000)}, {}, {}).write(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run.newest_intact() == (run.checkpoint(1), [])
    assert [p.name for p in run.checkpoint(1).parent.iterdir()] == ["step-00000001"]


def test_unstorable_state_fails_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="/state/method/x is a object"):
        draft_checkpoint(1, {"w": torch.zeros(1)}, {}, {"method": {"x": object()}}).write(RunDir(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_foreign_or_partial_checkpoint_is_refused(tmp_path: Path) -> None:
    path = draft_checkpoint(1, {"w": torch.zeros(1)}, {}, {}).write(RunDir(tmp_path))
    copy = tmp_path / "step-00000002"
    shutil.copytree(path, copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds neither"):
        load_checkpoint(copy)
    (path / "state.json").write_text((path / "state.json").read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(UserError, match="has format 2, this ptsdk reads 1"):
        load_checkpoint(path)
    (path / "state.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(path)
