"""Liger's own kernel beside core's cross-entropy: Triton's interpreter runs it on a CPU, where softcaps it cannot."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.benchmarks.pieces import TRITON, interpreting

CASES = """
import itertools
import json

import torch
from ptsdk.builtin.losses import CrossEntropy
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk_liger.loss import LigerCrossEntropy

found = {}
shapes = [(7, 8, 11), (130, 32, 1000), (33, 16, 70_000)]
for shape, biased, ignored in itertools.product(shapes, [False, True], [1, 2, 9]):
    n, d, v = shape
    generator = torch.Generator().manual_seed(n)
    leaves = [torch.randn(size, generator=generator).requires_grad_() for size in ((n, d), (v, d), (v,))]
    labels = torch.randint(0, v, (n,), generator=generator)
    labels[::ignored] = IGNORE
    hidden, weight, bias = leaves
    leaves = leaves if biased else leaves[:2]
    numbers = []
    for loss, dtype in ((LigerCrossEntropy(), torch.float32), (CrossEntropy(), torch.float64)):
        inputs = [leaf.to(dtype) for leaf in (hidden, weight, bias)]
        output = loss(inputs[0], Head(inputs[1], inputs[2] if biased else None), labels)
        gradients = torch.autograd.grad(output.sum, leaves, allow_unused=True, materialize_grads=True)
        numbers.append([number.double() for number in (output.sum.detach(), output.weight, *gradients)])
    off = [float((a - b).norm()) / max(float(b.norm()), 1e-30) for a, b in zip(*numbers, strict=True)]
    found[f"{shape} biased={biased} ignored={ignored}"] = off
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_kernel_is_cores_cross_entropy() -> None:
    assert TRITON.exists(), "make .venv-triton/.installed"
    command = [sys.executable, "-c", CASES]
    done = subprocess.run(command, capture_output=True, text=True, env=interpreting(), timeout=600)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 18
    assert max(max(off) for off in found.values()) < 1e-5, found
