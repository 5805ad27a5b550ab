"""What a loss has to do, whatever its objective."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ptsdk.contracts.loss import Loss, PreferenceLoss, Ratio, TokenLoss
from ptsdk.contracts.method import Method
from ptsdk.nn import linear_loss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.plan.meter import Meter
from ptsdk.testing.jobs import assembled, job_values
from ptsdk.testing.losses import VOCABULARY, WIDTH, Case, MethodCase, called_directly, direct_case, output_of
from ptsdk.testing.suite import ComponentSuite, examples

CUTS = (((0, 1), (2, 3)), ((3,), (2,), (1, 0)), ((2, 0, 3, 1),))
"""Ways to deal four items out to micro-batches and processes."""
STEP = 1e-5
ROWS = 9
MANY_ROWS, MANY_WORDS = (2**13, 2**16), 2**9
"""The larger is asked of a loss with chunks of its own: 128 MiB of logits in float32, then 384."""


class LossSuite(ComponentSuite):
    """For the kind ``loss``.

    A token, preference or policy loss is called as such; one with another call by way of the
    installed method whose ``loss_type`` it is.
    """

    kind: ClassVar[str] = "loss"

    def case(self, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Case:
        """A few items to call the loss on."""
        loss: Loss = self.make()
        if called_directly(loss):
            return direct_case(loss, dtype, scale)
        return MethodCase(self._run(loss), dtype, scale)

    def _run(self, loss: Loss) -> Any:
        """A run of the first method that calls such losses."""
        for entry in self.registry.entries("method"):
            method: type[Method] = self.registry.load(entry)
            if method.loss_type is not Loss and isinstance(loss, method.loss_type):
                named = {"use": entry.qualified, **examples(method)}
                values = job_values(self.folder, self.registry, named, loss=loss)
                return assembled(values, self.registry, self.folder)
        raise AssertionError(
            f"{type(loss).__name__} is neither a TokenLoss, a PreferenceLoss nor a PolicyLoss, "
            f"and no method that is seen here calls it: name its dist in `needs`"
        )

    def test_returns_a_sum_and_its_weight(self) -> None:
        """A scalar with gradient, a positive weight without, metrics that are scalars; a preference loss [B]."""
        case = self.case()
        raw = case.raw(range(case.count))
        if isinstance(self.make(), PreferenceLoss):
            assert isinstance(raw, Tensor) and raw.shape == (case.count,), "it must return the loss [B] of each pair"
        raw = case(range(case.count))
        assert raw.sum.ndim == 0 and raw.sum.requires_grad, "`sum` must be a scalar with gradient"
        assert raw.weight.ndim == 0 and not raw.weight.requires_grad, "`weight` must be a scalar without gradient"
        assert raw.weight > 0, f"the weight of {case.count} items is {float(raw.weight)}"
        for name, metric in raw.metrics.items():
            for value in (metric.sum, metric.count) if isinstance(metric, Ratio) else (metric,):
                assert value.ndim == 0, f"the metric {name} is no scalar"

    def test_what_carries_no_loss_is_inert(self) -> None:
        """Masked positions, and a reference that the loss says it does not need, change nothing."""
        case = self.case()
        before = case(range(case.count))
        if not case.disturb():
            pytest.skip("all that it is given carries loss: nothing is masked, and it says it needs the reference")
        after = case(range(case.count))
        assert close(before.sum, after.sum), f"the sum was {before.sum:.6g}, with other masked values {after.sum:.6g}"
        assert close(before.weight, after.weight), f"the weight was {before.weight}, then {after.weight}"

    def test_a_step_may_be_cut_anywhere(self) -> None:
        """Sums and weights of parts add up to those of the whole, in any order: 1x4 == 4x1 == 2 ranks x 2."""
        case = self.case()
        whole = case(range(case.count))
        for cut in CUTS:
            parts = [case(part) for part in cut]
            total, weight = (torch.stack([p.sum for p in parts]).sum(), torch.stack([p.weight for p in parts]).sum())
            assert close(total, whole.sum), f"cut as {cut} the sum is {total:.8g}, whole {whole.sum:.8g}"
            assert close(weight, whole.weight), f"cut as {cut} the weight is {weight}, whole {whole.weight}"
            for name, metric in whole.metrics.items():
                mine = torch.stack([total_of(p.metrics[name]) for p in parts]).sum()
                assert close(mine, total_of(metric)), f"cut as {cut} the metric {name} adds up to another number"

    def test_gradient_is_that_of_finite_differences(self) -> None:
        """In float64, along random directions through all that the loss is a function of."""
        case = self.case()
        items = range(case.count)
        gradients = torch.autograd.grad(case(items).sum, case.leaves, allow_unused=True)
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            way = [torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) for leaf in case.leaves]
            told = sum(float((g * w).sum()) for g, w in zip(gradients, way, strict=True) if g is not None)
            found = (self._moved(case, way, STEP) - self._moved(case, way, -STEP)) / (2 * STEP)
            assert math.isclose(told, found, rel_tol=1e-4, abs_tol=1e-6), (
                f"the gradient says {told:.8g} along a direction, finite differences {found:.8g}"
            )

    def test_is_finite_at_extremes(self) -> None:
        """Loss and gradient, in float32, of logits or log-probs of some thousands."""
        case = self.case(torch.float32, 1e3)
        output = case(range(case.count))
        assert output.sum.isfinite(), f"the loss is {float(output.sum)}"
        for gradient in torch.autograd.grad(output.sum, case.leaves, allow_unused=True):
            assert gradient is None or gradient.isfinite().all(), "the gradient is not finite"

    def test_takes_the_whole_head(self) -> None:
        """Bias and softcap of the head count: sum, weight and gradient are those of the head's own logits."""
        loss = self.token_loss()
        generator = torch.Generator().manual_seed(3)
        hidden, weight = randn(generator, ROWS, WIDTH), randn(generator, VOCABULARY, WIDTH)
        bias = randn(generator, VOCABULARY)
        labels = torch.randint(VOCABULARY, (ROWS,), generator=generator)
        labels[::3] = IGNORE
        for what, head in (("bias", Head(weight, bias)), ("softcap", Head(weight, None, 2.0))):
            leaves = [tensor for tensor in (hidden, head.weight, head.bias) if tensor is not None]
            # Hidden states that are the unit vectors have, under this head, the very same logits.
            same = Head(head.logits(hidden).T)
            told = output_of(loss(hidden, head, labels))
            expected = output_of(loss(torch.eye(ROWS, dtype=torch.float64), same, labels))
            assert close(told.sum, expected.sum), (
                f"with a {what} in the head the sum is {told.sum:.6g}; of its logits it would be {expected.sum:.6g}"
            )
            assert close(told.weight, expected.weight), f"with a {what} in the head the weight is another"
            gradients = (torch.autograd.grad(output.sum, leaves, retain_graph=True) for output in (told, expected))
            assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True)), (
                f"with a {what} in the head the gradient is not that of its logits"
            )

    def test_makes_no_logits_of_all_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """More rows need no more memory but for hidden states: logits [N, V] are never alive at a time."""
        loss = self.token_loss()
        monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", 2**20)  # who chunks as core does is asked about few rows
        assert any(bounded(loss, rows) for rows in MANY_ROWS), (
            f"memory grows with the logits of all rows, [N, V], up to {3 * MANY_ROWS[-1]} x {MANY_WORDS}: project the "
            f"supervised rows some at a time, as `ptsdk.nn.linear_loss` does"
        )

    def token_loss(self) -> TokenLoss:
        """The loss, where it is one that projects hidden states itself."""
        loss: Loss = self.make()
        if not isinstance(loss, TokenLoss):
            pytest.skip("it is not called with hidden states and a head")
        return loss

    @staticmethod
    @torch.no_grad()
    def _moved(case: Case, way: list[Tensor], step: float) -> float:
        """The loss with every leaf moved along ``way``."""
        for leaf, direction in zip(case.leaves, way, strict=True):
            leaf += step * direction
        value = float(case(range(case.count)).sum)
        for leaf, direction in zip(case.leaves, way, strict=True):
            leaf -= step * direction
        return value


def randn(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal numbers in float64 that ask for a gradient."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)


def bounded(loss: TokenLoss, rows: int) -> bool:
    """Whether three times the rows need less than their logits more; a loop may hold one chunk, then two."""
    return peak_of(loss, 3 * rows) - peak_of(loss, rows) < 1.5 * rows * MANY_WORDS * torch.float32.itemsize


def peak_of(loss: TokenLoss, rows: int) -> int:
    """The most bytes alive in forward and backward, float32."""
    hidden, weight = torch.ones(rows, 2, requires_grad=True), torch.ones(MANY_WORDS, 2, requires_grad=True)
    labels = torch.arange(rows) % MANY_WORDS
    with Meter() as meter:
        output_of(loss(hidden, Head(weight), labels)).sum.backward()  # type: ignore[no-untyped-call]
    return meter.peak


def close(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding in float64."""
    return math.isclose(float(a.detach()), float(b.detach()), rel_tol=1e-9, abs_tol=1e-9)


def total_of(metric: Tensor | Ratio) -> Tensor:
    """The sum of a metric."""
    return metric.sum if isinstance(metric, Ratio) else metric
