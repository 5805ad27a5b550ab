"""Loggers and callbacks: they override the run events they care about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ptsdk.contracts.component import Component

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run


class RunListener(Component):
    """The events of ``hookspecs.RunEvents`` as methods that do nothing. Override what you need.

    Only the main process calls them, with host floats, one after the other on a thread of the
    listener's own. What a listener must remember between calls goes into ``run.scratch[self]``.

    An exception is reported once and never ends a run. Neither does a call that hangs: after
    ``timeout`` seconds the run goes on, and later calls line up behind that one. A listener that works
    with the model gives ``timeout`` the default None, or training would go on beneath it.
    """

    writes_beside: ClassVar[tuple[str, ...]] = ()
    """Files and folders in the working directory that it writes to by default; all else it writes is in
    the output directory, or where an option says."""

    timeout: float | None = Field(
        30.0, gt=0, description="seconds that the run waits for a call; what is late goes on beside it. null: for ever"
    )

    def run_start(self, run: Run) -> None:
        """Everything is assembled; nothing has been trained."""

    def model_ready(self, run: Run) -> None:
        """Weights are loaded, and restored on resume."""

    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """An optimizer step ended."""

    def validation(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """A pass over the validation data ended."""

    def checkpoint(self, run: Run, step: int, path: Path) -> None:
        """The checkpoint of ``step`` is complete on disk; with ``train.async_save``, some steps later."""

    def run_end(self, run: Run, error: BaseException | None) -> None:
        """The run is over."""

    def state(self, run: Run) -> dict[str, Any]:
        """JSON-able state that a resumed run must have back, kept in checkpoints. Not an event."""
        return {}

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """The inverse of ``state``, called before ``run_start`` of a resumed run."""


class Logger(RunListener):
    """One entry of ``loggers:``."""

    kind: ClassVar[str] = "logger"


class Callback(RunListener):
    """One entry of ``callbacks:``; besides listening it may stop the run."""

    kind: ClassVar[str] = "callback"

    def needs_validation(self) -> bool:
        """Whether it does nothing without ``data.validation``; a job that has none is then refused."""
        return False

    def should_stop(self, run: Run, step: int, metrics: Mapping[str, float]) -> str | None:
        """A reason to stop now, or None."""
        return None
