"""How the kernel is called, beside core's loss; the kernel itself runs on a GPU alone."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ptsdk.builtin.losses import CrossEntropy
from ptsdk.errors import UserError
from ptsdk.job.load import make_job
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.testing import suites_of
from ptsdk.testing.jobs import job_values
from ptsdk_liger.loss import LigerCrossEntropy

globals().update(suites_of("ptsdk-liger"))


class StandIn(nn.Module):
    """``LigerFusedLinearCrossEntropyLoss``, by its documentation and without its fusion."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        assert set(options) == {"ignore_index", "reduction", "softcap", "accum_dtype"}
        assert options["accum_dtype"] == torch.float32
        self.options = options

    def forward(self, lin_weight: Tensor, _input: Tensor, target: Tensor, bias: Tensor | None = None) -> Tensor:
        assert len(target), "the kernel's grid would be empty"
        logits = nn.functional.linear(_input, lin_weight, bias)
        cap = self.options["softcap"]
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        how = {name: self.options[name] for name in ("ignore_index", "reduction")}
        return nn.functional.cross_entropy(logits, target, **how)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    package, transformers = ModuleType("liger_kernel"), ModuleType("liger_kernel.transformers")
    transformers.LigerFusedLinearCrossEntropyLoss = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", transformers)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("supervised", [0, 4])
def test_is_cross_entropy(softcap: float | None, biased: bool, supervised: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(shape, generator=generator) for shape in ((6, 8), (11, 8), (11,)))
    leaves = [tensor.requires_grad_() for tensor in ([hidden, weight, bias] if biased else [hidden, weight])]
    labels = torch.tensor([3, IGNORE, 0, 10, IGNORE, 7]) if supervised else torch.full((6,), IGNORE)
    head = Head(weight, bias if biased else None, softcap)
    found, expected = LigerCrossEntropy()(hidden, head, labels), CrossEntropy()(hidden, head, labels)
    torch.testing.assert_close(found.sum, expected.sum)
    assert found.weight == expected.weight == supervised
    mine = torch.autograd.grad(found.sum, leaves, allow_unused=True, materialize_grads=True)
    for gradient, other in zip(mine, torch.autograd.grad(expected.sum, leaves), strict=True):
        torch.testing.assert_close(gradient, other)


def test_a_job_on_a_cpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(scan())
    values = job_values(tmp_path, registry, loss="liger_cross_entropy")
    monkeypatch.setattr("ptsdk._requirements._is_met", lambda requirement: True)
    with pytest.raises(UserError) as refused:
        make_job(values, registry, tmp_path)
    (problem,) = refused.value.problems
    assert problem.path == "loss"
    assert problem.message == "loss liger_cross_entropy needs a cuda device, and this trains on cpu"


def test_a_job_without_the_package_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(scan())
    monkeypatch.setattr("ptsdk._requirements._is_met", lambda requirement: requirement.name != "liger-kernel")
    with pytest.raises(UserError) as refused:
        make_job(job_values(tmp_path, registry, loss="liger_cross_entropy"), registry, tmp_path)
    assert refused.value.problems[0].hint == "pip install 'ptsdk-liger[cuda]'"
