"""The strategy itself, imported when a job says ``strategy: {use: example-strategy, threads: 4}``."""

from __future__ import annotations

import torch
from ptsdk.builtin.single import Single
from ptsdk.contracts.strategy import World
from pydantic import Field


class ExampleStrategy(Single):
    """Everything in this process, with so many threads of the CPU.

    It builds on core's `single`. A strategy for several processes implements the whole of
    ``ptsdk.contracts.strategy.Strategy`` instead: ptsdk-fsdp2 is one to read.
    """

    threads: int | None = Field(None, ge=1, description="threads of the CPU; torch decides by default")

    def setup(self) -> World:
        """Called once, before anything is built."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return super().setup()
