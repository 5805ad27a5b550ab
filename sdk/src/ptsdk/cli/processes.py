"""One command in several processes of this machine: started, watched and ended together.

The variables are torchrun's, so that a strategy need not know who started it. torchrun itself is for
several machines; it cannot be used here because it ends with a code and a report of its own, and
what the run had to say is lost above them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from ptsdk.errors import RunError

GRACE = 3.0
"""Seconds that the others have to end by themselves after one has failed."""
PATIENCE = 10.0
"""Seconds that a process waits with an error of its own: see ``wait_for_the_cause``."""
POLL = 0.05
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
ENDED_BY: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}
"""Exit codes of a run that had nothing to save yet."""
STARTED_BY = "PTSDK_STARTED_BY"
"""Set for the processes started here."""
SPOKEN = (0, 1, 2, 130, 143)
"""Exit codes of a process that has said why, if there was anything to say."""
PR_SET_PDEATHSIG = 1


def run_together(command: Sequence[str], count: int, environment: Mapping[str, str]) -> int:
    """Run ``command`` in ``count`` processes and wait for all.

    Args:
        environment: what the processes see beside this one's environment.

    Returns:
        0 when all succeeded, else the exit code of the first that failed, after the others were
        stopped. Signals to this process are handed on; 130 or 143 where one ended a process that had
        nothing to save yet.

    Raises:
        RunError: one was killed by a signal.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # Held here, on a port that the system chose: no two runs can pick the same.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {**os.environ, **environment, **_group(count, store.port)}
    die_with_parent = _follow(os.getpid())
    children = [
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            start_new_session=True,  # ctrl-c reaches them through this process, once
            preexec_fn=die_with_parent,
        )
        for rank in range(count)
    ]
    handed_on: set[int] = set()
    before = {number: signal.signal(number, _hand_on(children, handed_on)) for number in FORWARDED}
    try:
        return _outcome(children, handed_on)
    finally:
        _stop(children)
        for number, handler in before.items():
            signal.signal(number, handler)


def rank() -> int:
    """The number of this process among those of its run, as far as the environment says."""
    text = os.environ.get("RANK", "0")
    return int(text) if text.isdigit() else 0


def should_warn() -> bool:
    """Whether it is this process that tells of oddities; one of several does."""
    return STARTED_BY not in os.environ and rank() == 0


def wait_for_the_cause(certain: bool) -> None:
    """Let the process that knows best speak, when one of several has failed.

    An error of all is told by the main process, at once if ``certain``; the others are stopped
    while they wait here. Where another process is the cause, it has told so and ended, and this
    one, which only lost its connection, is stopped while it waits.
    """
    if "RANK" in os.environ and (rank() or not certain):
        time.sleep(PATIENCE if rank() else 2 * GRACE)


def _group(count: int, port: int) -> dict[str, str]:
    return {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 is not to open the port once more
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))),
        STARTED_BY: str(os.getpid()),
    }


def _outcome(children: list[subprocess.Popen[bytes]], handed_on: set[int]) -> int:
    """Wait until all have succeeded or one has failed."""
    while None in (codes := [child.poll() for child in children]) and not any(codes):
        time.sleep(POLL)
    for number, code in enumerate(codes):
        if code is not None and -code in ENDED_BY and handed_on:
            return ENDED_BY[-code]
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            raise RunError(f"process {number} of {len(children)} was killed by {name}; the others were stopped")
    number, code = next(((number, code) for number, code in enumerate(codes) if code), (0, 0))
    if code not in SPOKEN:
        print(
            f"ptsdk: process {number} of {len(children)} ended without a word; the others were stopped", file=sys.stderr
        )
    return code


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    """End those still running: with a request first, then at once."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + GRACE
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(POLL)
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()


def _hand_on(children: list[subprocess.Popen[bytes]], handed_on: set[int]) -> Callable[[int, FrameType | None], None]:
    def hand_on(number: int, frame: FrameType | None) -> None:
        handed_on.add(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    return hand_on


def _follow(parent: int) -> Callable[[], None] | None:
    """What a child runs before it starts, so that none outlives this process, however it ends.

    Only Linux has it. ``prctl`` is looked up before the fork, after which nothing may be loaded.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def follow() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return follow
