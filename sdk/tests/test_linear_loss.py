"""The fused losses against the plain ones, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy, log_softmax

from ptsdk.nn import linear_loss, vocabulary_tiles
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.nn.linear_loss import linear_cross_entropy, linear_log_probs


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", 3 * 23)  # three rows of logits at a time, where the head trains
    for module in (linear_loss, vocabulary_tiles):
        monkeypatch.setattr(module, "TILE", 5)  # the last of five tiles has three columns


def problem(bias: bool, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 7, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(23, 7, generator=generator, dtype=dtype).requires_grad_()
    bias_ = torch.randn(23, generator=generator, dtype=dtype).requires_grad_() if bias else None
    labels = torch.randint(0, 23, (11,), generator=generator)
    labels[[0, 4, 10]] = IGNORE
    return hidden, weight, bias_, labels


def plain_cross_entropy(hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
    return cross_entropy(head.logits(hidden), labels, ignore_index=IGNORE, reduction="sum")


def plain_log_probs(hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
    keep = labels != IGNORE
    return log_softmax(head.logits(hidden[keep]), -1).gather(1, labels[keep, None]).squeeze(1)


def refreshed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` with a new graph at each backward: gradcheck asks one graph several times."""

    class Fresh(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            ctx.save_for_backward(*inputs)
            return function(*inputs)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
            with torch.enable_grad():
                return torch.autograd.grad(function(*inputs), inputs, grad)

    return lambda *inputs: Fresh.apply(*inputs)


PAIRS = [(linear_cross_entropy, plain_cross_entropy), (linear_log_probs, plain_log_probs)]


@pytest.mark.parametrize(("fused", "plain"), PAIRS)
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frozen_head", [False, True])
def test_values_and_gradients(
    fused: Callable[..., Tensor], plain: Callable[..., Tensor], softcap: float | None, bias: bool, frozen_head: bool
) -> None:
    hidden, weight, bias_, labels = problem(bias)
    if frozen_head:
        weight.requires_grad_(False)
        bias_ = None if bias_ is None else bias_.requires_grad_(False)
    leaves = [t for t in (hidden, weight, bias_) if t is not None and t.requires_grad]
    results = []
    for function in (fused, plain):
        value = function(hidden, Head(weight, bias_, softcap), labels)
        upstream = torch.linspace(0.5, 2, value.numel(), dtype=torch.float64).view_as(value)
        results.append((value.detach(), *torch.autograd.grad(value, leaves, upstream)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("fused", [linear_cross_entropy, linear_log_probs])
def test_gradcheck(fused: Callable[..., Tensor], softcap: float | None) -> None:
    hidden, weight, _, labels = problem(bias=False)
    fresh = refreshed(lambda h, w: fused(h, Head(w, None, softcap), labels))
    assert gradcheck(fresh, (hidden, weight))


def test_masked_rows_are_inert() -> None:
    hidden, weight, _, labels = problem(bias=False)
    before = linear_cross_entropy(hidden, Head(weight), labels)
    with torch.no_grad():
        hidden[labels == IGNORE] = 1e6
    after = linear_cross_entropy(hidden, Head(weight), labels)
    assert torch.equal(before, after)
    after.backward()
    assert hidden.grad is not None
    assert torch.equal(hidden.grad[labels == IGNORE], torch.zeros_like(hidden.grad[labels == IGNORE]))


def test_no_supervised_row_is_zero_with_zero_gradient() -> None:
    hidden, weight, _, labels = problem(bias=False)
    loss = linear_cross_entropy(hidden, Head(weight), torch.full_like(labels, IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None and not hidden.grad.any()
    assert weight.grad is not None and not weight.grad.any()


def test_float32_sums_stay_accurate() -> None:
    hidden, weight, _, labels = problem(bias=False, dtype=torch.float32)
    hidden, labels = hidden.detach().repeat(2000, 1), labels.repeat(2000)
    fused = linear_cross_entropy(hidden, Head(weight), labels)
    exact = plain_cross_entropy(hidden.double(), Head(weight.detach().double()), labels)
    assert fused.dtype == torch.float32
    assert abs(fused.item() / exact.item() - 1) < 1e-6


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [(False, [(3, 23), (3, 23), (2, 23)]), (True, [(8, 5), (8, 5), (8, 5), (8, 5), (8, 3)])],
)
def test_never_a_full_logit_tensor(
    monkeypatch: pytest.MonkeyPatch, frozen: bool, expected: list[tuple[int, int]]
) -> None:
    """Few rows of a head that trains; all rows, but a tile of the vocabulary, of one that is frozen."""
    shapes: list[tuple[int, int]] = []
    original = vocabulary_tiles.products
    for module in (linear_loss, vocabulary_tiles):
        monkeypatch.setattr(module, "products", lambda *a: shapes.append((len(a[0]), len(a[1]))) or original(*a))
    hidden, weight, _, labels = problem(bias=False)
    linear_cross_entropy(hidden, Head(weight.requires_grad_(not frozen)), labels).backward()
    assert shapes == expected


@pytest.mark.parametrize("frozen", [False, True])
def test_a_sure_label_has_an_exact_gradient_in_bfloat16(frozen: bool) -> None:
    """``p - 1`` of a label that is all but sure: were it a difference of what bfloat16 holds it would be 0 or 2^-8."""
    hidden, weight, _, _ = problem(bias=False, dtype=torch.bfloat16)
    with torch.no_grad():
        hidden /= hidden.norm(dim=1, keepdim=True)
        weight[:11] = hidden * 9
        weight[11:] *= 0.1
    labels = torch.arange(11)
    linear_cross_entropy(hidden, Head(weight.requires_grad_(not frozen)), labels).backward()
    with torch.no_grad():
        grad_logits = torch.softmax((hidden @ weight.T).double(), -1) - torch.eye(11, 23, dtype=torch.float64)
        expected = [grad_logits @ weight.double(), *([] if frozen else [grad_logits.T @ hidden.double()])]
    for leaf, exact in zip((hidden, weight), expected, strict=False):
        assert leaf.grad is not None
        assert ((leaf.grad - exact).norm(dim=1) < 2**-6 * exact.norm(dim=1))[:11].all()


def test_tiles_of_rising_logits_are_summed_over_one_maximum() -> None:
    """Every tile has a new maximum, far above that of the tile before: what was summed falls below any number."""
    hidden = torch.ones(2, 1, requires_grad=True)
    weight = (torch.arange(23.0) * 50)[:, None]
    labels = torch.tensor([22, 0])
    value = linear_log_probs(hidden, Head(weight), labels)
    torch.testing.assert_close(value, torch.tensor([0.0, -1100.0]))
    value.sum().backward()
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad[:, 0], torch.tensor([0.0, -1100.0]))


@pytest.mark.parametrize("fused", [linear_cross_entropy, linear_log_probs])
def test_validation_makes_no_gradient(monkeypatch: pytest.MonkeyPatch, fused: Callable[..., Tensor]) -> None:
    hidden, weight, bias, labels = problem(bias=True)
    expected = fused(hidden, Head(weight, bias), labels)
    for owner, name in ((vocabulary_tiles.Sweep, "gradient"), (linear_loss.Gradients, "add")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("made a gradient nobody asked for"))
    with torch.no_grad():  # tiles of the vocabulary in place of whole rows: sums in another order
        torch.testing.assert_close(fused(hidden, Head(weight, bias), labels), expected.detach(), rtol=1e-14, atol=0)
