"""Packing against torchao itself, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, NF4Tensor, PerGroup, quantize_

from ptsdk_torchao.layers import PackedLinear
from ptsdk_torchao.schemes import NF4, Int4, Int8, Scheme

SCHEMES: list[Scheme] = [NF4(), Int8(), Int4(), Int4(64)]


def random_weight(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    scales = torch.logspace(-3, 1, rows)[:, None]  # blocks of very different size
    return (torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * scales).to(dtype)


def by_torchao(scheme: Scheme, weight: Tensor) -> Tensor:
    """The weight after torchao's own round trip."""
    if isinstance(scheme, NF4):
        return NF4Tensor.from_tensor(weight, 64, 256).get_original_weight()
    layer = torch.nn.Linear(weight.shape[1], len(weight), bias=False)
    layer.weight = torch.nn.Parameter(weight.clone())
    config: Any = Int8WeightOnlyConfig()
    if isinstance(scheme, Int4):
        config = IntxWeightOnlyConfig(torch.int4, PerGroup(scheme.group_size))
    quantize_(layer, config)
    dense: Tensor = layer.weight.dequantize()  # type: ignore[operator]
    return dense


def packed_linear(scheme: Scheme, weight: Tensor, bias: Tensor | None = None) -> PackedLinear:
    with torch.device("meta"):
        base = torch.nn.Linear(weight.shape[1], len(weight), bias is not None, dtype=weight.dtype)
    layer = PackedLinear.of(base, scheme)
    assert layer.weight.is_meta and layer.unpacked_shape("weight") == weight.shape
    held = layer.pack("weight", weight)
    assert held.shape == layer.weight.shape and held.dtype == layer.weight.dtype == torch.uint8
    layer.weight = held
    if bias is not None:
        layer.bias = layer.pack("bias", bias)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_unpacking_gives_the_bits_of_torchao(scheme: Scheme, dtype: torch.dtype) -> None:
    weight = random_weight(128, 256, dtype)
    unpacked = scheme.unpack(scheme.pack(weight), 256, dtype)
    assert unpacked.dtype == dtype
    assert unpacked.equal(by_torchao(scheme, weight))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_shard_of_packed_rows_is_a_packed_shard(scheme: Scheme) -> None:
    packed = scheme.pack(random_weight(128, 256, torch.float32))
    whole = scheme.unpack(packed, 256, torch.float32)
    assert scheme.unpack(packed[37:91], 256, torch.float32).equal(whole[37:91])
    assert scheme.unpack(packed[5:6], 256, torch.float32).equal(whole[5:6])


@pytest.mark.parametrize(
    ("scheme", "dtype", "limit"),
    [
        (NF4(), torch.float32, 0.5625),
        (NF4(), torch.bfloat16, 0.53125),
        (Int8(), torch.bfloat16, 1.001),
        (Int4(), torch.bfloat16, 0.5625),
    ],
    ids=str,
)
def test_bytes_a_weight(scheme: Scheme, dtype: torch.dtype, limit: float) -> None:
    assert scheme.row_bytes(4096, dtype) / 4096 <= limit
    assert scheme.pack(torch.randn(64, 4096, dtype=dtype)).shape == (64, scheme.row_bytes(4096, dtype))


@pytest.mark.parametrize(
    ("rows", "columns", "block"), [(3, 16, 16), (5, 48, 16), (7, 96, 32), (1, 64, 64), (3, 448, 64)]
)
def test_nf4_of_odd_shapes_is_torchao_with_smaller_blocks(rows: int, columns: int, block: int) -> None:
    weight = random_weight(rows, columns, torch.float32)
    assert NF4().block(columns) == block
    count = weight.numel() // block
    theirs = NF4Tensor.from_tensor(weight, block, max(n for n in (1, 2, 4, 8, 16) if count % n == 0))
    assert NF4().unpack(NF4().pack(weight), columns, torch.float32).equal(theirs.get_original_weight())


def test_nf4_keeps_zeros() -> None:
    weight = torch.randn(128, 256)
    weight[5] *= 30  # zero is not the extreme scale, so it is rounded
    weight[3] = 0
    weight[9, 64:128] = 0
    unpacked = NF4().unpack(NF4().pack(weight), 256, torch.float32)
    assert not unpacked[3].any() and not unpacked[9, 64:128].any()
    assert NF4().unpack(NF4().pack(torch.zeros(32, 64)), 64, torch.float32).equal(torch.zeros(32, 64))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_forward_and_gradient_are_those_of_the_unpacked_weight(scheme: Scheme) -> None:
    weight, bias = random_weight(64, 128, torch.float32), torch.randn(64)
    layer = packed_linear(scheme, weight, bias)
    x = torch.randn(2, 5, 128, requires_grad=True)
    y = layer(x)
    grad = torch.randn_like(y)
    y.backward(grad)
    assert x.grad is not None
    dense = by_torchao(scheme, weight) if not isinstance(scheme, NF4) else layer.unpacked("weight")
    torch.testing.assert_close(y, x.detach() @ dense.T + bias)
    torch.testing.assert_close(x.grad, grad @ dense)
    assert not any(p.requires_grad for p in layer.parameters())


def test_nothing_dense_is_kept_for_the_backward() -> None:
    layer = packed_linear(NF4(), random_weight(128, 256, torch.float32))
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(4, 256, requires_grad=True))
    assert [tensor.dtype for tensor in kept] == [torch.uint8]


def test_a_bfloat16_input_over_a_float32_base() -> None:
    layer = packed_linear(Int8(), random_weight(64, 128, torch.float32))
    assert layer(torch.randn(3, 128, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(("scheme", "columns"), [(NF4(), 40), (Int8(), 8), (Int4(64), 96)], ids=str)
def test_shapes_that_cannot_be_packed_are_told(scheme: Scheme, columns: int) -> None:
    assert str(columns) in (scheme.fault(columns) or "")
