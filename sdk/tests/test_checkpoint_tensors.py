"""Tensors and trees come back bit for bit; damaged files are refused with their sizes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ptsdk.checkpoint.files import WriteError
from ptsdk.checkpoint.tensors import TensorFiles, read_header, save_sharded, save_tensors, split
from ptsdk.checkpoint.tree import flatten_state, unflatten_state
from ptsdk.errors import RunError, UserError

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int64, torch.int32,
          torch.int8, torch.uint8, torch.bool]  # fmt: skip


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else raw(tensor[None])


def same(a: Any, b: Any) -> bool:
    """Equal in type, structure, dtype, shape and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and raw(a) == raw(b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def test_dtypes_shapes_and_views_survive(tmp_path: Path) -> None:
    tensors = {str(dtype): (torch.randn(3, 5) * 9).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 4), "empty2": torch.empty(0, 4)}
    tensors |= {"nan": torch.tensor([math.nan, -0.0, math.inf]), "transposed": torch.randn(4, 6).T}
    save_tensors(tensors, tmp_path / "t.safetensors")
    back = TensorFiles.of(tmp_path / "t.safetensors")
    assert set(back) == set(tensors) and len(back) == len(tensors)
    for name, tensor in tensors.items():
        assert same(back[name], tensor), name
        assert back.shape(name) == tuple(tensor.shape)


def test_shared_tensors_are_written_once_and_overlapping_ones_in_full(tmp_path: Path) -> None:
    whole = torch.randn(8, 4)
    tensors = {"a": whole, "tied": whole, "reshaped": whole.view(4, 8), "slice": whole[2:5]}
    save_tensors(tensors, tmp_path / "t.safetensors")
    assert set(read_header(tmp_path / "t.safetensors").entries) == {"a", "reshaped", "slice"}
    back = TensorFiles.of(tmp_path / "t.safetensors")
    assert all(same(back[name], tensor) for name, tensor in tensors.items())
    assert back.shape("tied") == (8, 4)


def test_a_slice_costs_its_own_bytes(tmp_path: Path) -> None:
    save_tensors({"row": torch.zeros(1_000_000)[:10]}, tmp_path / "t.safetensors")
    assert (tmp_path / "t.safetensors").stat().st_size < 1000


def test_only_plain_tensors_are_written(tmp_path: Path) -> None:
    class Special(torch.Tensor):
        pass

    with pytest.raises(RunError, match="w is a Special"):
        save_tensors({"w": torch.zeros(2).as_subclass(Special)}, tmp_path / "t")


def test_truncated_and_corrupt_files_are_refused_with_their_sizes(tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    save_tensors({"w": torch.zeros(100)}, file)
    complete = file.read_bytes()
    for size in (0, 4, 20, len(complete) - 1):
        file.write_bytes(complete[:size])
        with pytest.raises(UserError, match=rf"t\.safetensors is not a complete.* {size} bytes"):
            read_header(file)
    with pytest.raises(UserError, match=rf"expected {len(complete)} bytes.* {len(complete) - 1} bytes"):
        TensorFiles.of(file)
    file.write_bytes(complete + b"x")
    with pytest.raises(UserError, match=rf"expected {len(complete)} bytes"):
        read_header(file)
    file.write_bytes(complete[:8] + b"!" + complete[9:])
    with pytest.raises(UserError, match="header is not what the format demands"):
        read_header(file)
    file.write_bytes(b"\xff" * 8 + complete[8:])
    with pytest.raises(UserError, match="not a complete safetensors file"):
        read_header(file)


def test_full_disk(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(WriteError, match="cannot write"):
            save_tensors({"w": torch.zeros(10_000)}, tmp_path / "t.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_shards_are_read_back_and_indexed_as_the_hub_does(tmp_path: Path) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards

    tensors = {f"layers.{i}.w": torch.randn(10 + i, 10) for i in range(7)}
    save_sharded(tensors, tmp_path, max_bytes=1200)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    plan = split_torch_state_dict_into_shards(
        tensors, max_shard_size=1200, filename_pattern="model{suffix}.safetensors"
    )
    assert index["weight_map"] == plan.tensor_to_filename
    assert index["metadata"]["total_size"] == plan.metadata["total_size"]
    back = TensorFiles({name: tmp_path / file for name, file in index["weight_map"].items()})
    assert all(same(back[name], tensor) for name, tensor in tensors.items())


def test_a_tensor_larger_than_a_shard_stands_alone() -> None:
    tensors = {"a": torch.zeros(1), "big": torch.zeros(100), "b": torch.zeros(1)}
    assert [list(shard) for shard in split(tensors, 8)] == [["a"], ["big"], ["b"]]


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.builds(torch.tensor, st.lists(st.integers(-9, 9), max_size=3)),
)  # fmt: skip
keys = st.one_of(st.text(max_size=4), st.integers(-3, 3), st.sampled_from(["$tensor", "$tuple", "a/b", "a~b", "a"]))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_any_tree_survives_json(tree: Any) -> None:
    tensors, plain = flatten_state(tree)
    assert same(unflatten_state(tensors, json.loads(json.dumps(plain))), tree)


def test_optimizer_state_survives(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 4).bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    model(torch.randn(2, 4).bfloat16()).sum().backward()
    optimizer.step()
    tensors, plain = flatten_state(optimizer.state_dict())
    save_tensors(tensors, tmp_path / "o.safetensors")
    back = unflatten_state(TensorFiles.of(tmp_path / "o.safetensors"), json.loads(json.dumps(plain)))
    assert same(back, optimizer.state_dict())


def test_what_cannot_be_stored_is_named_by_its_place() -> None:
    with pytest.raises(RunError, match="/a/b~1c/1 is a set"):
        flatten_state({"a": {"b/c": [1, {2}]}})
    with pytest.raises(RunError, match="/a is a float64"):
        flatten_state({"a": __import__("numpy").float64(1)})
    with pytest.raises(RunError, match="is a tuple"):
        flatten_state({(1, 2): 3})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages are kept as long as the mapping")
def test_what_is_read_leaves_memory_with_the_tensor(tmp_path: Path) -> None:
    """One open file for all tensors; what still lives of one is not lost with another reading of it."""
    save_tensors({f"t{i}": torch.full((2**20,), float(i)) for i in range(16)}, tmp_path / "t.safetensors")
    script = f"""
import os, re
from pathlib import Path
from ptsdk.checkpoint.tensors import TensorFiles
def mapped():
    return int(re.search(r"RssFile:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
files = TensorFiles.of(Path({str(tmp_path / "t.safetensors")!r}))
before, opened = mapped(), len(os.listdir("/proc/self/fd"))
sums = [files[f"t{{i}}"].sum().item() for i in range(16)]
kept = [files[f"t{{i}}"] for i in range(16)]
again = files["t3"]
again[5000] = 7
del again
right = sums == [2**20 * i for i in range(16)]
print(mapped() - before, len(os.listdir("/proc/self/fd")) - opened, right, kept[3][5000].item())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    growth, opened, right, value = done.stdout.split()
    assert (int(opened), right, value) == (1, "True", "7.0")
    assert int(growth) < 16, "MiB of the 64 that were read"
