"""The fused distillation against plain torch on whole logits, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from ptsdk.nn import linear_loss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk_kd import linear_kd
from ptsdk_kd.linear_kd import Distilled, linear_distillation
from ptsdk_kd.losses import JSD, DistillationLoss, ForwardKL, ReverseKL

ROWS, WIDTH, TEACHER_WIDTH, VOCAB = 11, 7, 5, 23
LOSSES = {
    "forward": ForwardKL(),
    "reverse": ReverseKL(),
    "jsd": JSD(),
    "jsd_near_teacher": JSD(beta=0.1, temperature=0.7),
    "hot_forward": ForwardKL(temperature=3.0),
    "hot_reverse": ReverseKL(temperature=3.0),
}
losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", 3 * 2 * VOCAB)  # three rows of both models at a time


class Problem:
    """Random states and heads of two models; ``leaves`` are what may get a gradient."""

    def __init__(
        self, *, bias: bool = False, teacher_vocab: int = VOCAB, dtype: torch.dtype = torch.float64, cap: float | None
    ) -> None:
        self.generator, self.dtype = torch.Generator().manual_seed(0), dtype
        self.hidden = self.random(ROWS, WIDTH).requires_grad_()
        self.weight = self.random(VOCAB, WIDTH).requires_grad_()
        self.bias = self.random(VOCAB).requires_grad_() if bias else None
        self.cap = cap
        self.teacher_hidden = self.random(ROWS, TEACHER_WIDTH)
        teacher_bias = self.random(teacher_vocab) if bias else None
        self.teacher = Head(self.random(teacher_vocab, TEACHER_WIDTH), teacher_bias, cap)
        self.labels = torch.randint(0, VOCAB, (ROWS,), generator=self.generator)
        self.labels[[0, 4, 10]] = IGNORE

    def random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=self.dtype)

    @property
    def leaves(self) -> list[Tensor]:
        return [t for t in (self.hidden, self.weight, self.bias) if t is not None and t.requires_grad]

    def fused(self, loss: DistillationLoss, ratio: float) -> Distilled:
        head = Head(self.weight, self.bias, self.cap)
        return linear_distillation(self.hidden, head, self.teacher_hidden, self.teacher, self.labels, loss, ratio)


def plain(problem: Problem, loss: DistillationLoss, ratio: float) -> Distilled:
    """By torch's own losses on whole logits: what a reader would write without a thought for memory."""
    keep = problem.labels != IGNORE
    student = Head(problem.weight, problem.bias, problem.cap).logits(problem.hidden)[keep]
    teacher = problem.teacher.logits(problem.teacher_hidden)[keep]
    ce = cross_entropy(student, problem.labels[keep], reduction="sum")
    common = min(student.shape[1], teacher.shape[1])
    s, t = (log_softmax(logits[:, :common] / loss.temperature, -1) for logits in (student, teacher))
    match loss:
        case ForwardKL():
            kd = kl_div(s, t, log_target=True, reduction="sum")
        case ReverseKL():
            kd = kl_div(t, s, log_target=True, reduction="sum")
        case JSD():
            mixture = (loss.beta * t.exp() + (1 - loss.beta) * s.exp()).log()
            kd = loss.beta * kl_div(mixture, t, log_target=True, reduction="sum")
            kd = kd + (1 - loss.beta) * kl_div(mixture, s, log_target=True, reduction="sum")
    return Distilled((1 - ratio) * ce + ratio * kd, ce, kd)


def compare(problem: Problem, loss: DistillationLoss, ratio: float) -> None:
    results = []
    for function in (Problem.fused, plain):
        distilled = function(problem, loss, ratio)
        gradients = torch.autograd.grad(distilled.total * 1.7, problem.leaves)
        results.append((*(value.detach() for value in distilled), *gradients))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@losses
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients(loss: DistillationLoss, ratio: float, cap: float | None, bias: bool) -> None:
    compare(Problem(bias=bias, cap=cap), loss, ratio)


@losses
@pytest.mark.parametrize("teacher_vocab", [VOCAB + 4, VOCAB - 1])
def test_vocabularies_padded_to_different_sizes(loss: DistillationLoss, teacher_vocab: int) -> None:
    problem = Problem(bias=True, teacher_vocab=teacher_vocab, cap=None)
    problem.labels[5] = VOCAB - 1
    compare(problem, loss, 0.3)


def test_padding_of_the_teacher_changes_nothing() -> None:
    short, loss = Problem(cap=None), ForwardKL()
    before = short.fused(loss, 1.0)
    short.teacher = Head(torch.cat([short.teacher.weight, torch.full((4, TEACHER_WIDTH), 50.0, dtype=torch.float64)]))
    assert torch.equal(short.fused(loss, 1.0).divergence, before.divergence)


@losses
def test_a_frozen_head_gets_no_gradient(loss: DistillationLoss) -> None:
    problem = Problem(cap=None)
    problem.weight.requires_grad_(False)
    compare(problem, loss, 0.5)


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


@losses
@pytest.mark.parametrize("cap", [None, 2.0])
def test_gradcheck(loss: DistillationLoss, cap: float | None) -> None:
    p = Problem(cap=cap)

    def total(hidden: Tensor, weight: Tensor) -> Tensor:
        head = Head(weight, None, cap)
        return linear_distillation(hidden, head, p.teacher_hidden, p.teacher, p.labels, loss, 0.4).total

    assert gradcheck(refreshed(total), (p.hidden, p.weight))


@losses
def test_a_student_like_its_teacher_has_nothing_to_learn(loss: DistillationLoss) -> None:
    problem = Problem(cap=None)
    problem.teacher, problem.teacher_hidden = Head(problem.weight.detach()), problem.hidden.detach()
    distilled = problem.fused(loss, 1.0)
    distilled.total.backward()
    assert distilled.divergence.abs() < 1e-12
    assert problem.hidden.grad is not None and problem.hidden.grad.abs().max() < 1e-12


@losses
def test_far_from_the_teacher_is_finite_in_float32(loss: DistillationLoss) -> None:
    problem = Problem(dtype=torch.float32, cap=None)
    with torch.no_grad():
        problem.hidden.mul_(200)
    distilled = problem.fused(loss, 0.5)
    distilled.total.backward()
    assert all(torch.isfinite(value) for value in (*distilled, problem.hidden.grad.sum(), problem.weight.grad.sum()))


def test_masked_rows_are_inert() -> None:
    problem = Problem(cap=None)
    before = problem.fused(JSD(), 0.5)
    with torch.no_grad():
        problem.hidden[problem.labels == IGNORE] = 1e6
        problem.teacher_hidden[problem.labels == IGNORE] = 1e6
    after = problem.fused(JSD(), 0.5)
    assert torch.equal(before.total, after.total)
    after.total.backward()
    assert problem.hidden.grad is not None and not problem.hidden.grad[problem.labels == IGNORE].any()


def test_no_supervised_row_is_zero_with_zero_gradient() -> None:
    problem = Problem(cap=None)
    problem.labels.fill_(IGNORE)
    distilled = problem.fused(ForwardKL(), 0.5)
    distilled.total.backward()
    assert [value.item() for value in distilled] == [0, 0, 0]
    assert problem.hidden.grad is not None and not problem.hidden.grad.any()
    assert problem.weight.grad is not None and not problem.weight.grad.any()


def test_never_a_full_logit_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[int, list[int]] = {WIDTH: [], TEACHER_WIDTH: []}
    original = linear_kd.logits_of
    monkeypatch.setattr(
        linear_kd,
        "logits_of",
        lambda hidden, *rest: rows[hidden.shape[1]].append(len(hidden)) or original(hidden, *rest),
    )
    Problem(cap=None).fused(JSD(), 0.5).total.backward()
    assert rows == {WIDTH: [3, 3, 2], TEACHER_WIDTH: [3, 3, 2]}


def test_validation_makes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(bias=True, cap=None)
    expected = problem.fused(JSD(), 0.5)
    monkeypatch.setattr(linear_loss.Gradients, "add", lambda *_: pytest.fail("made a gradient nobody asked for"))
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(problem.fused(JSD(), 0.5), expected, strict=True))


def test_a_second_backward_is_refused() -> None:
    total = Problem(cap=None).fused(ForwardKL(), 0.5).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()


def test_the_gradient_reaches_the_student_alone() -> None:
    problem = Problem(cap=None)
    weight = problem.teacher.weight.requires_grad_()
    distilled = problem.fused(ForwardKL(), 0.5)
    distilled.total.backward()
    assert weight.grad is None
    assert not distilled.cross_entropy.requires_grad and not distilled.divergence.requires_grad
