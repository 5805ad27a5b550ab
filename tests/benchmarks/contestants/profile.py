"""Where the time of our job goes: the operations that take most of it, by torch's profiler."""

from __future__ import annotations

from typing import Any

import torch

import ptsdk
from tests.benchmarks.contestants.report import FOLDER, told

MOST = 8


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.profiler.ProfilerActivity.CUDA if device == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profiler:
        ptsdk.run(FOLDER / "job.yaml", overwrite=True)
    seconds = {event.key: spent(event, device) for event in profiler.key_averages()}
    most = sorted(seconds, key=lambda name: -seconds[name])[:MOST]
    told(operations={name: seconds[name] / sum(seconds.values()) for name in most})


def spent(event: Any, device: str) -> float:
    """The time of an operation, or of a kernel, without what it calls."""
    return float(event.self_device_time_total if device == "cuda" else event.self_cpu_time_total)


if __name__ == "__main__":
    main()
