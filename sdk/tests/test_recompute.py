"""What is made again in the backward: the numbers of the plain path, and what is alive until then."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint

from ptsdk.nn.attention import Documents
from ptsdk.nn.mlp import GatedMLP, gated
from ptsdk.nn.norm import RMSNorm
from ptsdk.nn.recompute import is_recomputed, not_kept, recomputed
from ptsdk.nn.rope import rotations
from ptsdk.nn.self_attention import SelfAttention

Hidden = Callable[[Tensor], Tensor]


class NormedAttention(SelfAttention):
    """With norms of queries and keys, as Gemma 3 and Qwen 3 have them."""

    def __init__(self) -> None:
        super().__init__(0, 8, 4, 2, 6)
        self.q_norm, self.k_norm = RMSNorm(6, 1e-6), RMSNorm(6, 1e-6)

    def project(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(x_ND)
        return self.q_norm(q), self.k_norm(k), v


class Block(nn.Module):
    """Norm, attention, norm, gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = RMSNorm(8, 1e-6), NormedAttention()
        self.second, self.mlp = RMSNorm(8, 1e-6), GatedMLP(8, 20, silu)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        rope = rotations(torch.arange(len(x)), torch.ones(3), x.dtype)
        x = x + self.attention(self.first(x), rope, Documents((len(x) - 3, 3)))
        return x + self.mlp(self.second(x))


def gradients(block: Block, run: Hidden, x: Tensor) -> list[Tensor]:
    """By the input and every weight."""
    leaf = x.clone().requires_grad_()
    out = run(leaf)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [leaf, *block.parameters()])]


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have autograd keep what it keeps by itself."""
    for place in ("ptsdk.nn.norm", "ptsdk.nn.mlp", "ptsdk.nn.self_attention"):
        monkeypatch.setattr(f"{place}.recomputed", lambda function, *inputs: function(*inputs))


def test_gradients_are_those_of_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block, x = Block().double(), torch.randn(10, 8, dtype=torch.float64)
    ours = gradients(block, block, x)
    plainly(monkeypatch)
    plain = gradients(block, block, x)
    assert torch.equal(ours[0], plain[0])
    for mine, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12 * other.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("around", ["checkpoint", "hooks"])
def test_checkpointing_and_offloading_change_no_bit(around: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block, x = Block().to(dtype), torch.randn(10, 8, dtype=dtype)

    def run(leaf: Tensor) -> Tensor:
        if around == "checkpoint":
            return checkpoint(block, leaf, use_reentrant=False)  # type: ignore[no-any-return]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
            return block(leaf)  # type: ignore[no-any-return]

    pairs = zip(gradients(block, run, x), gradients(block, block, x), strict=True)
    assert all(torch.equal(mine, other) for mine, other in pairs)


def test_what_is_not_kept_is_gone_until_the_backward() -> None:
    x, weight = torch.randn(5, 7, requires_grad=True), torch.randn(3, 7, requires_grad=True)
    made = recomputed(torch.exp, x)
    with not_kept(made):
        out = made @ weight.T
    alive, made = weakref.ref(made), None  # type: ignore[assignment]
    gc.collect()
    assert alive() is None
    out.sum().backward()
    torch.testing.assert_close(weight.grad, x.exp().sum(0).expand(3, 7))
    torch.testing.assert_close(x.grad, weight.sum(0) * x.exp())


def test_it_is_made_again_once() -> None:
    calls: list[int] = []

    def counted(x: Tensor) -> Tensor:
        calls.append(1)
        return x.exp()

    x, weights = torch.randn(5, 7, requires_grad=True), torch.randn(3, 7, 7, requires_grad=True)
    made = recomputed(counted, x)
    with not_kept(made):
        out = sum(made @ weight for weight in weights)
    assert isinstance(out, Tensor)
    for times in (2, 3):  # a graph that is kept makes it again for each backward
        out.sum().backward(retain_graph=True)
        assert len(calls) == times


def test_the_result_made_again_is_gone_before_its_own_gradient() -> None:
    made: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            alive.append(made[-1]() is not None)
            return grad * 2

    def twice(x: Tensor) -> Tensor:
        result: Tensor = Watched.apply(x)  # type: ignore[no-untyped-call]
        made.append(weakref.ref(result))
        return result

    leaf = torch.randn(3, requires_grad=True)
    product = recomputed(twice, leaf)
    with not_kept(product):
        squared = product * product
    squared.sum().backward()
    assert len(made) == 2 and alive == [False]
    torch.testing.assert_close(leaf.grad, 8 * leaf.detach())


def test_only_the_factors_of_the_gated_product_wait() -> None:
    gate, up = torch.randn(5, 33, requires_grad=True), torch.randn(5, 33, requires_grad=True)
    waiting: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: waiting.append(t.data_ptr()) or t.detach(), lambda t: t):
        gated(gate, up, silu)
    assert waiting == [gate.data_ptr(), up.data_ptr()]


def test_hooks_outside_see_what_is_saved_all_the_same() -> None:
    """Offloading and checkpointing are such hooks, and torch asks none but the innermost."""
    x, weight = torch.randn(5, 7, requires_grad=True), torch.randn(7, 7, requires_grad=True)
    seen: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.data_ptr()) or t.detach(), lambda t: t):
        made = recomputed(torch.exp, x)
        with not_kept(made):
            out = made @ weight
    assert sorted(seen) == sorted([x.data_ptr(), weight.data_ptr()])
    out.sum().backward()
    torch.testing.assert_close(weight.grad, x.exp().sum(0)[:, None].expand(7, 7))


def test_a_tensor_of_the_same_shape_is_not_taken_for_it() -> None:
    """On the meta device every address is 0."""
    x, other = (torch.empty(4, 4, device="meta", requires_grad=True) for _ in range(2))
    made = recomputed(torch.exp, x)
    seen: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t.detach(), lambda t: t), not_kept(made):
        made @ other
    assert len(seen) == 1


def test_writing_into_what_was_saved_inside_is_an_error() -> None:
    x, weight = torch.randn(5, 7, requires_grad=True), torch.randn(7, 7, requires_grad=True)
    made = recomputed(torch.exp, x)
    with not_kept(made):
        out = made @ weight
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_what_has_no_gradient_or_is_a_view_is_as_ever() -> None:
    x = torch.randn(4, 6)
    assert not is_recomputed(recomputed(torch.exp, x))
    made = recomputed(torch.exp, x.requires_grad_())
    assert is_recomputed(made)
    assert not is_recomputed(made.view(6, 4))
    with torch.no_grad():
        assert not is_recomputed(recomputed(torch.exp, x))


def test_a_frozen_weight_gets_no_gradient_and_a_lone_weight_does() -> None:
    norm, x = RMSNorm(6, 1e-6), torch.randn(4, 6)
    nn.init.ones_(norm.weight)
    norm(x).sum().backward()
    assert norm.weight.grad is not None
    norm.weight.grad = None
    norm.weight.requires_grad_(False)
    norm(x.requires_grad_()).sum().backward()
    assert norm.weight.grad is None
    assert x.grad is not None
