"""Signals that ask a run to stop: the step is finished and saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from ptsdk.errors import PtsdkError

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def one_request() -> Iterator[None]:
    """Inside, SIGUSR1 is SIGTERM, where there is no step to finish too: a scheduler is told the same by both."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


class Stopped(PtsdkError):
    """A signal ended the run after it had saved. Exit codes: 130 for SIGINT, else 143."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after saving; continue with --resume")
        self.exit_code = 130 if number == signal.SIGINT else 143


class StopSignals:
    """While active, remembers the first signal instead of dying of it. A second SIGINT kills."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in CAUGHT}
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    @staticmethod
    def raise_if(number: int | None) -> None:
        """End the run if there was a signal."""
        if number is not None:
            raise Stopped(number)
