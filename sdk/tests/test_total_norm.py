"""The norm of gradients has all its digits, whatever the dtype of the gradients."""

from __future__ import annotations

import pytest
import torch

from ptsdk.contracts.strategy import total_norm


@pytest.mark.parametrize("dtypes", [[torch.bfloat16] * 3, [torch.float32, torch.bfloat16, torch.float16]], ids=str)
def test_is_that_of_float64(dtypes: list[torch.dtype]) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(40 + i, 30, generator=generator).to(dtype) for i, dtype in enumerate(dtypes)]
    exact = torch.cat([gradient.double().flatten() for gradient in gradients]).norm()
    found = total_norm(gradients)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(exact), rel=1e-6)


def test_keeps_float64() -> None:
    numbers = torch.tensor([3.0, 4.0], dtype=torch.float64) / 7
    assert float(total_norm([numbers])) == pytest.approx(5 / 7, rel=1e-15)


def test_of_nothing_is_zero() -> None:
    assert float(total_norm([])) == 0
