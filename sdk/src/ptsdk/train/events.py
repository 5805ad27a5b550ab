"""Tells the loggers and callbacks of a job what happens, and survives whatever they do."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pluggy

from ptsdk.contracts.events import Callback, RunListener
from ptsdk.contracts.run import Run
from ptsdk.hookspecs import RunEvents
from ptsdk.redaction import environment_secrets, hide
from ptsdk.train.worker import Late, Worker

T = TypeVar("T")
EVENTS = tuple(name for name in vars(RunEvents) if not name.startswith("_"))


class RunEventBus:
    """The events of one run, for the listeners its job names and no others.

    Each listener works on a thread of its own and is waited for, so events stay in order. One that
    raises, or does not return within its ``timeout``, is reported once on stderr, by name; the run and
    the other listeners go on, and it is told of later events as before (``Worker``). The main process
    makes a bus of the job's listeners, the others an empty one.

    Args:
        listeners: in the order they are told.
        secrets: what no report may hold.
    """

    def __init__(self, listeners: Sequence[RunListener], secrets: Collection[str] = ()) -> None:
        self._secrets = {*secrets, *environment_secrets()}
        self._listeners = _named(listeners)
        self._workers = {name: Worker(listener.timeout) for name, listener in self._listeners.items()}
        self._states: dict[str, dict[str, Any]] = {}
        self._reported: set[tuple[str, str]] = set()
        manager = _Manager("ptsdk")
        manager.add_hookspecs(RunEvents)
        for name, listener in reversed(self._listeners.items()):  # pluggy calls the last registered first
            manager.register(self._guarded(name, listener), name=name)
        self._hook = manager.hook

    def run_start(self, run: Run) -> None:
        """Everything is assembled; nothing has been trained."""
        self._hook.run_start(run=run)

    def model_ready(self, run: Run) -> None:
        """Weights are loaded, and restored on resume."""
        self._hook.model_ready(run=run)

    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """An optimizer step ended."""
        self._hook.step(run=run, step=step, metrics=metrics)

    def validation(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """A pass over the validation data ended."""
        self._hook.validation(run=run, step=step, metrics=metrics)

    def checkpoint(self, run: Run, step: int, path: Path) -> None:
        """A checkpoint is complete on disk."""
        self._hook.checkpoint(run=run, step=step, path=path)

    def run_end(self, run: Run, error: BaseException | None) -> None:
        """The run is over."""
        self._hook.run_end(run=run, error=error)

    def should_stop(self, run: Run, step: int, metrics: Mapping[str, float]) -> str | None:
        """The reason of the first callback that has one."""
        reason: str | None = self._hook.should_stop(run=run, step=step, metrics=metrics)
        return reason

    def state(self, run: Run) -> dict[str, dict[str, Any]]:
        """What listeners keep in a checkpoint, by name; those with nothing to keep are left out. One
        that is late keeps what it kept before."""
        for name, listener in self._listeners.items():
            if (state := self._guard(name, "state", listener.state)(run)) is not None:
                self._states[name] = state
        return {name: state for name, state in self._states.items() if state}

    def restore(self, run: Run, states: Mapping[str, dict[str, Any]]) -> None:
        """The inverse of ``state``; a listener the checkpoint does not know starts afresh."""
        for name, state in states.items():
            if name in self._listeners:
                self._guard(name, "restore", self._listeners[name].restore)(run, state)
                self._states[name] = state

    def _guarded(self, name: str, listener: RunListener) -> SimpleNamespace:
        """What pluggy sees of a listener: the events it overrides, none of which can raise."""
        guards = {event: self._guard(name, event, getattr(listener, event)) for event in overridden(listener)}
        return SimpleNamespace(**guards)

    def _guard(self, name: str, event: str, method: Callable[..., T]) -> Callable[..., T | None]:
        @functools.wraps(method)  # pluggy reads the names of its arguments
        def call(*args: Any) -> T | None:
            try:
                result: T = self._workers[name].call(safe, *args, wait=event == "run_end")
                return result
            except Late:
                seconds = f"{self._listeners[name].timeout:g} s"
                self._report(name, f"has not returned from {event} for {seconds}", "the run does not wait for it")
                return None

        def safe(*args: Any) -> T | None:
            try:
                return method(*args)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  third-party code must not end a run of hours
                self._report(name, f"failed in {event}: {type(error).__name__}: {error}", "the run goes on")
                return None

        return call

    def _report(self, name: str, what: str, then: str) -> None:
        if (name, then) not in self._reported:
            self._reported.add((name, then))
            print(f"ptsdk: {name} {hide(what, self._secrets)}\n    {then}; said once", file=sys.stderr, flush=True)


class _Manager(pluggy.PluginManager):
    """Takes methods by their name, without a marker."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """Options for an event, None for any other attribute."""
        if name not in EVENTS:
            return None
        return pluggy.HookimplOpts(
            wrapper=False, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False, specname=None
        )


def overridden(listener: RunListener) -> list[str]:
    """The events a listener cares about. Only a callback is asked whether to stop."""
    base = Callback if isinstance(listener, Callback) else RunListener
    own = type(listener)
    return [event for event in EVENTS if hasattr(base, event) and getattr(own, event) is not getattr(base, event)]


def _named(listeners: Sequence[RunListener]) -> dict[str, RunListener]:
    """Each under ``kind name``, numbered from its second appearance on: a key that a resumed run finds again."""
    seen: Counter[str] = Counter()
    named = {}
    for listener in listeners:
        name = f"{type(listener).kind} {getattr(listener, '__ptsdk_use__', None) or type(listener).__name__}"
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} #{seen[name]}"] = listener
    return named
