"""A thread for one listener, so that what hangs there does not hang the run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

BACKLOG = 10_000
"""Calls that wait for a listener at most; later ones are dropped."""


class Late(Exception):
    """The listener has not returned in time; what it was asked to do waits for its turn."""


class Worker:
    """Makes one call after the other, in order, and is waited for as long as it keeps up.

    Once a call takes longer than ``timeout`` nobody waits any more: calls line up behind it, and
    are waited for again when the worker has caught up. The thread ends with the process.

    Args:
        timeout: seconds; None waits for ever.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._calls: queue.Queue[_Call] = queue.Queue(BACKLOG)
        self._last: _Call | None = None

    def call(self, function: Callable[..., Any], *args: Any, wait: bool = False) -> Any:
        """``function(*args)``, on the thread.

        Args:
            wait: also for what has lined up before.

        Raises:
            Late: it has not returned in time, or waits for an earlier call that has not.
            BaseException: what the function raised.
        """
        behind = self._last is not None and not self._last.done.is_set()
        if self._last is None:
            threading.Thread(target=self._work, daemon=True).start()
        call, seconds = _Call(function, args), 0 if behind and not wait else self._timeout
        try:
            self._calls.put(call, timeout=seconds)
        except queue.Full:
            raise Late from None
        self._last = call
        if not call.done.wait(seconds):
            raise Late
        if call.error is not None:
            raise call.error
        return call.result

    def _work(self) -> None:
        while True:
            self._calls.get().make()


class _Call:
    """One call, and how it ended."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function, self._args = function, args
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def make(self) -> None:
        try:
            self.result = self._function(*self._args)
        except BaseException as error:  # noqa: BLE001  raised again where the call came from
            self.error = error
        finally:
            self.done.set()
