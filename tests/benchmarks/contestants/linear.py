"""The roofline: the best rate of a float32 `linear` on this machine."""

from __future__ import annotations

import time

import torch

from tests.benchmarks.contestants.report import told

SHAPES = ((2048, 1024, 4096), (2048, 2048, 2048), (1024, 640, 16384), (512, 256, 65536))
"""Rows, width in, width out: squares, and what a head is like."""
SECONDS = 0.5


def rate(rows: int, width: int, out: int) -> float:
    x, weight = torch.randn(rows, width), torch.randn(out, width)
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * width * out / best


with torch.no_grad():
    told(flops_per_second=max(rate(*shape) for shape in SHAPES))
