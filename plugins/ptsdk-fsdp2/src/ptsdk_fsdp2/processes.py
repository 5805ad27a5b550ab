"""How the processes of a run find each other, and which device each takes."""

from __future__ import annotations

import atexit
import itertools
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Literal

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from ptsdk.contracts.strategy import World
from ptsdk.errors import RunError, UserError

Wish = Literal["auto", "cpu", "cuda", "xpu"]

COLLECTIVES = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}
"""Who moves tensors of which device. Objects always go over the CPU."""

RUNS = itertools.count()
"""Numbers the groups that this process joins: what an earlier one left in the store is not read again."""

LETTING_GO = 0.2
"""Seconds that the threads of gloo have, before the interpreter ends, to let go of their tensors."""

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What `ptsdk run --nproc` and torchrun tell each process."""


def join(wish: Wish, timeout: float, environ: Mapping[str, str] = os.environ) -> World:
    """Join the process group that the environment describes; alone if it describes none. A group
    that this process is in already is used as it is.

    Args:
        wish: the device.
        timeout: seconds that this process waits for the others, now and in every exchange.
        environ: what tells of them.

    Raises:
        UserError: the environment is half set, or there is no such device for this process.
        RunError: the others cannot be reached.
    """
    rank, size, local_rank = place_among(environ)
    device = device_of(local_rank, wish)
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
    if not dist.is_initialized():
        try:
            store = meeting_place(rank, size) if "RANK" in environ else HashStore()
            dist.init_process_group(
                COLLECTIVES[device.type],
                timeout=timedelta(seconds=timeout),
                store=PrefixStore(f"run {next(RUNS)}", store),
                rank=rank,
                world_size=size,
            )
        except (RuntimeError, ValueError) as error:  # what torch raises for a store out of reach
            raise RunError(f"process {rank} of {size} cannot join the others: {error}") from error
        # A thread of gloo drops the tensors of a collective a moment after that has ended, which takes the
        # interpreter's lock; one that asks for it while the interpreter ends aborts the process.
        atexit.register(time.sleep, LETTING_GO)
    return World(dist.get_rank(), dist.get_world_size(), device)


@cache
def meeting_place(rank: int, size: int) -> Store:
    """Where the processes leave each other word: one for all runs of this process."""
    store: Store = next(rendezvous("env://", rank, size))[0]
    return store


def place_among(environ: Mapping[str, str]) -> tuple[int, int, int]:
    """(rank, number of processes, rank on this machine).

    Raises:
        UserError: some of ``VARIABLES`` are set and others are not, or one is no number.
    """
    given = [name for name in VARIABLES if name in environ]
    if "RANK" not in given and "WORLD_SIZE" not in given:
        return 0, 1, 0
    hint = "start the processes with `ptsdk run JOB --nproc N` or torchrun"
    if missing := [name for name in VARIABLES if name not in given]:
        raise UserError(f"this is one of several processes, but {', '.join(missing)} is not set", hint=hint)
    try:
        return int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ["LOCAL_RANK"])
    except ValueError:
        shown = ", ".join(f"{name}={environ[name]!r}" for name in VARIABLES[:3])
        raise UserError(f"not the numbers of a process: {shown}", hint=hint) from None


def device_of(local_rank: int, wish: Wish) -> torch.device:
    """The device of one process of this machine: an accelerator each, or the CPU for all.

    Raises:
        UserError: the device is not there, or there are more processes than devices.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    usable = found.type if found is not None and found.type in COLLECTIVES else "cpu"
    kind = usable if wish == "auto" else wish
    if kind == "cpu":
        return torch.device("cpu")
    if kind != usable:
        raise UserError(
            f"strategy.device is {wish}, but torch {torch.__version__} sees no such device here",
            hint="set strategy.device=auto, or install a build of torch for this device",
        )
    if local_rank >= (count := torch.accelerator.device_count()):
        raise UserError(
            f"process {local_rank} of this machine has no {kind} device: there are {count}",
            hint=f"start at most {count} processes here, or set strategy.device=cpu",
        )
    return torch.device(kind, local_rank)
