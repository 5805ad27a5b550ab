"""The fused losses against the plain ones, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy, log_softmax

from ptsdk.nn import linear_loss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.nn.linear_loss import linear_cross_entropy, linear_log_probs


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", 3 * 23)  # three rows of logits at a time


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


def test_never_a_full_logit_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = linear_loss.logits_of
    monkeypatch.setattr(linear_loss, "logits_of", lambda *a: sizes.append(len(a[0])) or original(*a))
    hidden, weight, _, labels = problem(bias=False)
    linear_cross_entropy(hidden, Head(weight), labels).backward()
    assert max(sizes) == 3 and sum(sizes) == 8


@pytest.mark.parametrize("fused", [linear_cross_entropy, linear_log_probs])
def test_validation_makes_no_gradient(monkeypatch: pytest.MonkeyPatch, fused: Callable[..., Tensor]) -> None:
    hidden, weight, bias, labels = problem(bias=True)
    expected = fused(hidden, Head(weight, bias), labels)
    monkeypatch.setattr(linear_loss.Gradients, "add", lambda *_: pytest.fail("made a gradient nobody asked for"))
    with torch.no_grad():
        assert torch.equal(fused(hidden, Head(weight, bias), labels), expected)
