"""The first of several processes, without the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

VARIABLES = {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
"""What a strategy finds in its environment, besides WORLD_SIZE."""


@contextmanager
def pretended(size: int) -> Iterator[None]:
    """Inside, a strategy finds itself to be process 0 of ``size``, in a group whose messages go nowhere."""
    before = dict(os.environ)
    os.environ |= {**VARIABLES, "WORLD_SIZE": str(size)}
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()
        os.environ.clear()
        os.environ.update(before)
