"""The roofline: the best rate of a `linear` on this machine, in float32 on a CPU and in bfloat16 on a GPU."""

from __future__ import annotations

import time

import torch

from tests.benchmarks.contestants.report import told

SHAPES = ((2048, 1024, 4096), (2048, 2048, 2048), (1024, 640, 16384), (512, 256, 65536))
"""Rows, width in, width out: squares, and what a head is like."""
GPU_SHAPES = ((8192, 2048, 8192), (8192, 8192, 8192))
SECONDS = 0.5
GPU = torch.cuda.is_available()


def rate(rows: int, width: int, out: int) -> float:
    how = {"device": "cuda", "dtype": torch.bfloat16} if GPU else {}
    x, weight = torch.randn(rows, width, **how), torch.randn(out, width, **how)
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        if GPU:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * rows * width * out / best


def best_rate() -> float:
    """Floating-point operations a second."""
    with torch.no_grad():
        return max(rate(*shape) for shape in (GPU_SHAPES if GPU else SHAPES))


if __name__ == "__main__":
    told(flops_per_second=best_rate())
