"""Tensor subclasses in a state: torch's own two-part tensor, taken apart and put together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing._internal.two_tensor import TwoTensor

from ptsdk.checkpoint.parts import Parts, map_parts, parts_of, rebuild
from ptsdk.checkpoint.tensors import TensorFiles, save_tensors
from ptsdk.checkpoint.tree import flatten_state, unflatten_state
from ptsdk.errors import UserError


def two() -> TwoTensor:
    return TwoTensor(torch.arange(6.0).reshape(2, 3), torch.full((2, 3), -0.0))


def test_a_subclass_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    nested = TwoTensor(two(), two())
    state = {"a": two(), "b": [nested], "dtype": torch.bfloat16, "plain": torch.ones(2)}
    tensors, tree = flatten_state(state)
    assert all(type(tensor) is Tensor for tensor in tensors.values())
    save_tensors(tensors, tmp_path / "x.safetensors")
    back = unflatten_state(TensorFiles.of(tmp_path / "x.safetensors"), json.loads(json.dumps(tree)))
    assert back["dtype"] is torch.bfloat16 and back["plain"].equal(torch.ones(2))
    for ours, theirs in ((back["a"], state["a"]), (back["b"][0].a, nested.a), (back["b"][0].b, nested.b)):
        assert type(ours) is TwoTensor and ours.shape == (2, 3) and ours.stride() == theirs.stride()
        assert ours.a.equal(theirs.a) and ours.b.equal(theirs.b) and ours.b.signbit().all()


def test_a_class_that_nothing_imported_is_not_imported() -> None:
    for kind in ("antigravity:Tensor", "os:system", "builtins:dict", "torch:Tensor"):
        with pytest.raises(UserError, match=kind):
            rebuild(Parts(kind, {}, None, (), ()))


def test_plain_tensors_have_no_parts() -> None:
    assert parts_of(torch.ones(1)) is None and parts_of(torch.nn.Parameter(torch.ones(1))) is None
    mapped = map_parts(lambda tensor: tensor + 1, two())
    assert isinstance(mapped, TwoTensor) and mapped.a.equal(two().a + 1) and mapped.b.equal(two().b + 1)
    assert map_parts(lambda tensor: tensor + 1, torch.zeros(1)).equal(torch.ones(1))
