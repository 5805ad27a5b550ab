"""The optimizers against torchao used directly, and through a checkpoint."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torchao.optim import AdamW4bit as Torchao4
from torchao.optim import AdamW8bit as Torchao8

from ptsdk.builtin.single import Single
from ptsdk.checkpoint.tensors import TensorFiles, save_tensors
from ptsdk.checkpoint.tree import flatten_state, unflatten_state
from ptsdk.errors import UserError
from ptsdk.plan.processes import pretended
from ptsdk_torchao.optimizers import AdamW4bit, AdamW8bit, LowBit


class Two(nn.Module):
    """A matrix with small state, a vector with full state."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(64, 128, generator=generator).to(dtype))
        self.vector = nn.Parameter(torch.randn(16, generator=generator).to(dtype))


def train(model: Two, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for parameter in model.parameters():
            generator = torch.Generator().manual_seed(step)
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        for group in optimizer.param_groups:  # as the trainer sets it
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * (1 - step / 10)
        optimizer.step()


def through_a_checkpoint(model: Two, optimizer: torch.optim.Optimizer, path: Path) -> dict[str, object]:
    tensors, tree = flatten_state(Single().gather_optimizer(model, optimizer))  # type: ignore[arg-type]
    save_tensors(tensors, path)
    state: dict[str, object] = unflatten_state(TensorFiles.of(path), json.loads(json.dumps(tree)))
    return state


@pytest.mark.parametrize(
    ("ours", "theirs", "dtype"), [(AdamW8bit, Torchao8, torch.float32), (AdamW4bit, Torchao4, torch.bfloat16)]
)
def test_same_steps_as_torchao_and_resumed_bit_for_bit(
    ours: type[LowBit], theirs: type[torch.optim.Optimizer], dtype: torch.dtype, tmp_path: Path
) -> None:
    whole, resumed, oracle = Two(dtype), Two(dtype), Two(dtype)
    component = ours(lr=1e-2, weight_decay=0.1)
    optimizer = component.build(dict(whole.named_parameters()))
    groups = [{"params": [oracle.matrix], "weight_decay": 0.1}, {"params": [oracle.vector], "weight_decay": 0.0}]
    train(whole, optimizer, range(4))
    train(oracle, theirs(groups, lr=1e-2), range(4))
    assert whole.matrix.equal(oracle.matrix) and whole.vector.equal(oracle.vector)
    assert not whole.matrix.equal(Two(dtype).matrix)

    first = component.build(dict(resumed.named_parameters()))
    train(resumed, first, range(2))
    kind = type(first.state[resumed.matrix]["exp_avg"])
    assert kind.__name__ == f"OptimState{'8' if ours is AdamW8bit else '4'}bit"
    state = through_a_checkpoint(resumed, first, tmp_path / "optimizer.safetensors")
    second = component.build(dict(resumed.named_parameters()))
    Single().load_optimizer(resumed, second, state)  # type: ignore[arg-type]
    restored = second.state[resumed.matrix]["exp_avg"]
    assert type(restored) is kind and restored.dtype == dtype
    train(resumed, second, range(2, 4))
    assert whole.matrix.equal(resumed.matrix) and whole.vector.equal(resumed.vector)
    assert_same_state(optimizer.state[whole.matrix], second.state[resumed.matrix])


def assert_same_state(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours["step"].equal(theirs["step"])
    for key in ("exp_avg", "exp_avg_sq"):
        names, _ = ours[key].__tensor_flatten__()
        assert all(getattr(ours[key], name).equal(getattr(theirs[key], name)) for name in names)


def test_state_is_small() -> None:
    model = Two(torch.float32)
    for component, limit in ((AdamW8bit(), 1.2), (AdamW4bit(), 0.6)):
        optimizer = component.build(dict(model.named_parameters()))
        train(model, optimizer, range(1))
        moment = optimizer.state[model.matrix]["exp_avg"]
        names, _ = moment.__tensor_flatten__()
        assert sum(getattr(moment, name).nbytes for name in names) <= limit * model.matrix.numel()


@pytest.mark.parametrize("component", [AdamW8bit, AdamW4bit])
def test_rounding_at_random_is_refused_where_no_weight_would_be(component: type[LowBit]) -> None:
    rounds = component(stochastic_rounding=True)
    rounds.build(dict(Two(torch.bfloat16).named_parameters()))
    with pytest.raises(UserError, match="no weight that trains is bfloat16"):
        rounds.build(dict(Two(torch.float32).named_parameters()))


def test_shards_in_bfloat16_step_as_their_rows_do() -> None:
    whole = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).bfloat16()
    rows = nn.Parameter(whole[:32].clone())
    oracle = Torchao8([rows], lr=1e-2, weight_decay=0.1)
    with pretended(2):
        mesh = init_device_mesh("cpu", (2,))
        shard = nn.Parameter(DTensor.from_local(whole[:32].clone(), mesh, [Shard(0)], run_check=False))
        optimizer = AdamW8bit(lr=1e-2, weight_decay=0.1).build({"w": shard})
        for step in range(3):
            rows.grad = torch.randn(32, 128, generator=torch.Generator().manual_seed(step)).bfloat16()
            shard.grad = DTensor.from_local(rows.grad.clone(), mesh, [Shard(0)], run_check=False)
            oracle.step()
            optimizer.step()
        assert shard.to_local().equal(rows) and not rows.equal(whole[:32])
        state = {key: value.to_local() for key, value in optimizer.state[shard].items() if isinstance(value, DTensor)}
        assert_same_state({**optimizer.state[shard], **state}, oracle.state[rows])


def test_shards_in_bfloat16_are_too_much_for_4_bits() -> None:
    with pretended(2):
        mesh = init_device_mesh("cpu", (2,))
        for dtype, refused in ((torch.float32, False), (torch.bfloat16, True)):
            rows = torch.zeros(32, 128, dtype=dtype)
            shard = nn.Parameter(DTensor.from_local(rows, mesh, [Shard(0)], run_check=False))
            with pytest.raises(UserError, match=r"shards in torch\.bfloat16: w") if refused else nullcontext():
                AdamW4bit().build({"w": shard})
