"""Suites without test files: pytest in this process, its outcome as data."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ptsdk.testing.suite import Suite

FILE = "import ptsdk.testing\n\nglobals().update(ptsdk.testing.suites_of({dist!r}))\n"
QUIET = (
    "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:faulthandler", "-p", "ptsdk.testing.plugin",
    "--import-mode=importlib", "--capture=sys", "-W", "ignore",
)  # fmt: skip


@dataclass
class Outcome:
    """What became of one suite: its class, the kind and name of its component, and the tests by result.

    ``failed`` has the message of each test, ``skipped`` the reason.
    """

    suite: str
    kind: str
    component: str
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The object of ``ptsdk conform --json``: counts, and what failed and was skipped by name."""
        counts = {name: len(getattr(self, name)) for name in ("passed", "failed", "skipped")}
        about = {"suite": self.suite, "kind": self.kind, "component": self.component}
        return {**about, **counts, "failures": self.failed, "reasons": self.skipped}


@dataclass(frozen=True)
class Report:
    """The outcomes of a dist's suites."""

    dist: str
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and something passed."""
        return not any(o.failed for o in self.outcomes) and any(o.passed for o in self.outcomes)

    def as_json(self) -> dict[str, Any]:
        """The document of ``ptsdk conform --json``."""
        return {"dist": self.dist, "ok": self.ok, "suites": [outcome.as_json() for outcome in self.outcomes]}


def conform(dist: str, environment: Mapping[str, str] | None = None) -> Report:
    """Run every suite of an installed dist.

    Args:
        dist: its name.
        environment: variables that decide what is discovered.
    """
    return Report(dist, run_file(FILE.format(dist=dist), environment))


def run_file(text: str, environment: Mapping[str, str] | None = None) -> tuple[Outcome, ...]:
    """Run a test file of that text by itself in this process; what its tests print is not shown.

    Returns:
        What became of each suite in it; where pytest itself did not get to its end, a failure that says so.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    recorder = _Recorder()
    with tempfile.TemporaryDirectory(prefix="ptsdk-conform-") as folder, _undisturbed(environment or {}):
        root = Path(folder).resolve()
        (root / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        file = root / f"test_{root.name.replace('-', '_')}.py"  # pytest keeps modules by their name
        file.write_text(text, encoding="utf-8")
        arguments = [str(file), "-c", str(root / "pytest.ini"), f"--rootdir={root}", f"--basetemp={root / 'tmp'}"]
        with contextlib.redirect_stdout(sys.stderr):
            code = int(pytest.main([*arguments, *QUIET], plugins=[recorder]))
    if recorder.interrupted:
        raise KeyboardInterrupt
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and "" not in recorder.outcomes:
        recorder.outcomes[""] = Outcome("pytest", "", "", failed={"pytest": f"it ended with the exit code {code}"})
    return tuple(recorder.outcomes.values())


class _Recorder:
    """A pytest plugin that keeps what was reported of each suite."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.interrupted = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.interrupted = excinfo.type is KeyboardInterrupt  # errors of collection are a subclass of it

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            suite: type[Suite] = item.cls  # type: ignore[attr-defined]
            standard = next(base for base in suite.__mro__[1:] if issubclass(base, Suite))
            name = suite.component.rpartition("/")[2]
            self.outcomes.setdefault(_class_of(item.nodeid), Outcome(standard.__name__, suite.kind, name))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.outcomes.setdefault("", Outcome("collection", "", "")).failed["collection"] = report.longreprtext

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome, test = self.outcomes[_class_of(report.nodeid)], report.nodeid.rpartition("::")[2]
        if report.failed:
            outcome.failed[test] = _why(report)
            if test in outcome.passed:
                outcome.passed.remove(test)  # it failed when it was taken down
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            outcome.skipped[test] = reason.removeprefix("Skipped: ")
        elif report.when == "call":
            outcome.passed.append(test)


def _class_of(nodeid: str) -> str:
    return nodeid.split("::")[1]


def _why(report: pytest.TestReport) -> str:
    """The message of what was raised, with the place in the component or the suite. A suite's own sentence
    is told without the values that pytest adds to it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return report.longreprtext
    message = crash.message.partition("\nassert ")[0].removeprefix("AssertionError: ")
    return f"{message}\n({Path(crash.path).name}:{crash.lineno})"


@contextlib.contextmanager
def _undisturbed(environment: Mapping[str, str]) -> Iterator[None]:
    """pytest without plugins or options of the environment's, which might change what a suite does."""
    before = dict(os.environ)
    os.environ.update({**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    os.environ.pop("PYTEST_ADDOPTS", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
