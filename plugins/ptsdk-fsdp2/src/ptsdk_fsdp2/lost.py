"""Which process the others wait for in vain: one that has ended, or hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from ptsdk.errors import LostProcess

ROLL_CALL = 2.0
"""Seconds that the processes have to say that they are there, once an exchange has failed."""
POLL = 0.05


@contextmanager
def told(timeout: float) -> Iterator[None]:
    """Inside, a failed exchange is told by the number of the process that did not take part.

    Gloo ends every exchange of a group as soon as one of its processes has gone, or one has waited for
    ``timeout`` seconds. Each process that sees this says in the store that it is there; who does not is lost.

    Raises:
        LostProcess: in the place of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        group = dist.group.WORLD
        if group is None:  # it failed to come about
            raise
        size = group.size()
        lost = roll_call(group.get_group_store(), group.rank(), size)
        if not lost:
            raise LostProcess(f"the {size} processes have lost each other: {error}") from error
        names = f"process {lost[0]}" if len(lost) == 1 else f"processes {', '.join(map(str, lost))}"
        raise LostProcess(
            f"{names} of {size} did not take part in an exchange: ended, or not there within {timeout:g} s\n"
            "    look for what it hangs in; where it only takes that long, raise strategy.timeout"
        ) from error


def roll_call(store: Store, rank: int, size: int) -> list[int]:
    """The processes that have not said that they are there, ``ROLL_CALL`` seconds after this one has."""
    store.set(f"there/{rank}", "")
    deadline = time.monotonic() + ROLL_CALL
    while lost := [other for other in range(size) if not store.check([f"there/{other}"])]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL)
    return lost
