"""Where the time of our job goes: the operations that take most of it, by torch's profiler."""

from __future__ import annotations

import torch

import ptsdk
from tests.benchmarks.contestants.report import FOLDER, told

MOST = 8


def main() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        ptsdk.run(FOLDER / "job.yaml", overwrite=True)
    operations = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in operations)
    told(operations={event.key: event.self_cpu_time_total / whole for event in operations[:MOST]})


if __name__ == "__main__":
    main()
