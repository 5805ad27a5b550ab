"""`ptsdk run` in processes that are forked, not started: a run and its death cost a fraction of a second.

The process that forks may import everything, and must compute nothing: torch's threads do not survive a
fork. So this is for scripts of their own, not for a test's process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


class Processes:
    """`ptsdk run` in one or several processes, forked from this one.

    Args:
        job: the job file; what the processes say goes into a ``.log`` beside it.
        count: how many.
        flags: after the job on the command line.
    """

    def __init__(self, job: Path, count: int, *flags: str) -> None:
        self.log = job.with_suffix(".log")
        self.codes: dict[int, int] = {}
        shared: dict[str, str] = {}
        if count > 1:
            from torch.distributed import TCPStore  # type: ignore[attr-defined]

            self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port)}
            shared["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        self.pids = []
        for rank in range(count):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
            self.pids.append(self._fork(["run", str(job), *flags], own))

    def _fork(self, command: list[str], environment: dict[str, str]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            os.environ.update(environment)
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            from ptsdk.cli.main import main

            code = main(command)
            sys.stderr.flush()
        finally:
            os._exit(code)

    def over(self, options: int = os.WNOHANG) -> bool:
        """Whether all have ended."""
        for pid in self.pids:
            if pid not in self.codes:
                ended, status = os.waitpid(pid, options)
                if ended:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
        return len(self.codes) == len(self.pids)

    def succeed(self) -> None:
        """Wait for all.

        Raises:
            AssertionError: one of them failed.
        """
        self.over(0)
        assert not any(self.codes.values()), f"{self.codes}: {self.log.read_text()[-2000:]}"

    def kill(self, pids: list[int], pause: float) -> None:
        """SIGKILL, one after the other."""
        for pid in pids:
            if pid not in self.codes:
                os.kill(pid, signal.SIGKILL)
                time.sleep(pause)
        self.over(0)
