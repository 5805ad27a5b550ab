"""What a step of our job would reach of the roofline if it were its matrix products alone, each timed by itself."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ptsdk
from tests.benchmarks.contestants.linear import best_rate
from tests.benchmarks.contestants.report import FOLDER, told

aten = torch.ops.aten
PRODUCTS = (aten.mm.default, aten.addmm.default, aten.addmm_.default, aten.bmm.default)
SECONDS = 0.05
"""Of every product."""

Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Sizes and strides."""


class Products(TorchDispatchMode):
    """Counts the products of a run by operation and by the layouts of what they multiply."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[Any, tuple[Layout, ...]]] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op in PRODUCTS:
            self.counts[op, tuple((tuple(t.shape), t.stride()) for t in args[:3] if isinstance(t, torch.Tensor))] += 1
        return op(*args, **(kwargs or {}))


def operations(layouts: tuple[Layout, ...]) -> int:
    """Floating-point operations of the product of the last two."""
    (left, _), (right, _) = layouts[-2:]
    return 2 * torch.Size(left).numel() * right[-1]


def extent(sizes: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements of the memory that a layout reaches."""
    return 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))


def seconds(op: Any, layouts: tuple[Layout, ...]) -> float:
    """The best time of one, on tensors that lie in memory as they did in the run."""
    tensors = [torch.randn(extent(*layout)).as_strided(*layout) for layout in layouts]
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        op(*tensors)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    with Products() as products:
        ptsdk.run(FOLDER / "job.yaml", overwrite=True)
    before = best_rate()  # a shared machine is not always as fast
    with torch.no_grad():
        spent = sum(count * seconds(*product) for product, count in products.counts.items())
    done = sum(count * operations(layouts) for (_, layouts), count in products.counts.items())
    told(roofline_of_the_products_alone=done / spent / max(before, best_rate()))


if __name__ == "__main__":
    main()
