"""Norm, gated MLP and attention against references written from their definitions, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from ptsdk.nn.attention import Documents
from ptsdk.nn.mlp import Activation, GatedMLP, gated
from ptsdk.nn.norm import RMSNorm, normalise


def test_norm_is_its_definition() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 7, 12, dtype=torch.float64) * 3
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 0.1).sqrt()
    torch.testing.assert_close(normalise(x, 0.1), expected)


def test_norm_of_low_precision_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    x = (torch.randn(64, 512) * 300).bfloat16()  # squares sum to what bfloat16 cannot resolve
    norm = RMSNorm(512, 1e-6).bfloat16()
    torch.nn.init.ones_(norm.weight)
    expected = normalise(x.double(), 1e-6)
    assert normalise(x, 1e-6).dtype == torch.float32  # families multiply before they round
    assert norm(x).dtype == torch.bfloat16
    assert ((norm(x).double() - expected).abs() / expected.abs().clamp(min=1e-3)).max() < 2**-8


def test_gated_mlp_is_its_definition() -> None:
    torch.manual_seed(0)
    mlp = GatedMLP(6, 10, silu, bias=True).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    weights = {name: parameter.detach() for name, parameter in mlp.named_parameters()}
    gate = x @ weights["gate_proj.weight"].T + weights["gate_proj.bias"]
    up = x @ weights["up_proj.weight"].T + weights["up_proj.bias"]
    hidden = gate / (1 + torch.exp(-gate)) * up
    torch.testing.assert_close(mlp(x), hidden @ weights["down_proj.weight"].T + weights["down_proj.bias"])


@pytest.mark.parametrize("activation", [silu, gelu])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gated_product_has_the_bits_that_autograd_gives(activation: Activation, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate, up, grad = (torch.randn(5, 33, dtype=dtype) for _ in range(3))
    results = []
    for product in (gated, lambda g, u, f: f(g) * u):
        leaves = gate.clone().requires_grad_(), up.clone().requires_grad_()
        value = product(*leaves, activation)
        results.append((value.detach(), *torch.autograd.grad(value, leaves, grad)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def attention_by_loops(
    q: Tensor, k: Tensor, v: Tensor, seq_lens: tuple[int, ...], scale: float, window: int | None
) -> Tensor:
    """One query, one head at a time, straight from the definition."""
    out = torch.empty_like(q)
    group = q.shape[1] // k.shape[1]
    start = 0
    for length in seq_lens:
        for i in range(start, start + length):
            first = start if window is None else max(start, i - window + 1)
            for head in range(q.shape[1]):
                keys, values = k[first : i + 1, head // group], v[first : i + 1, head // group]
                out[i, head] = torch.softmax(keys @ q[i, head] * scale, dim=0) @ values
        start += length
    return out


@pytest.mark.parametrize("window", [None, 1, 3, 4, 7, 50])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("seq_lens", [(17,), (1, 8, 1, 13), (4, 4)])
def test_attention_is_its_definition(seq_lens: tuple[int, ...], heads: int, kv_heads: int, window: int | None) -> None:
    torch.manual_seed(0)
    n = sum(seq_lens)
    q, k, v = (torch.randn(n, h, 6, dtype=torch.float64, requires_grad=True) for h in (heads, kv_heads, kv_heads))
    scale = 1 / math.sqrt(5)
    ours = Documents(seq_lens)(0, q, k, v, scale=scale, window=window)
    expected = attention_by_loops(q, k, v, seq_lens, scale, window)
    torch.testing.assert_close(ours, expected)
    probe = torch.randn_like(ours)
    gradients = torch.autograd.grad(ours, (q, k, v), probe)
    for gradient, other in zip(gradients, torch.autograd.grad(expected, (q, k, v), probe), strict=True):
        torch.testing.assert_close(gradient, other)


def test_lengths_that_do_not_cover_the_tokens_are_an_error() -> None:
    q = torch.randn(5, 1, 4)
    with pytest.raises(RuntimeError):
        Documents((3,))(0, q, q, q, scale=1.0)
