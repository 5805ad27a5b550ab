"""The pytest plugin (``pytest11``): fixtures for jobs in which discovery is blocked.

A test that asks for one of them sees core alone, whatever is installed; ``plugins`` lets others in by name.
Nothing here imports torch before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from ptsdk.registry import Registry
    from ptsdk.train.result import RunResult

GUARD = "test_standard_tests_are_whole"
"""The test in every suite that looks at the others."""

pytest.register_assert_rewrite("ptsdk.testing.suite", "ptsdk.testing.suites")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the suites that were skipped with their guard: they say nothing of their components."""
    for report in terminalreporter.stats.get("skipped", ()):
        if report.nodeid.endswith(f"::{GUARD}"):
            suite = report.nodeid.removesuffix(f"::{GUARD}")
            terminalreporter.write_line(f"{suite} was skipped with its guard: nothing is proven of its component")


class TinyJob(Protocol):
    """See the fixture ``tiny_job``."""

    def __call__(self, method: str | dict[str, Any] = "sft", **sections: Any) -> dict[str, Any]:
        """The sections of a job file."""
        ...


class RunTheJob(Protocol):
    """See the fixture ``run_job``."""

    def __call__(self, job: dict[str, Any], *, resume: bool = False) -> RunResult:
        """Train it."""
        ...


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """``plugins("ptsdk-lora")``: the components of core and of the dists named, as a registry.

    From then on this test, and any process it starts, discovers nothing else; before the first call
    it discovers core alone.
    """
    from ptsdk.testing.seen import isolated

    monkeypatch.delenv("PTSDK_DISABLE", raising=False)

    def only(*dists: str) -> Registry:
        monkeypatch.setenv("PTSDK_PLUGINS", ",".join(dists))
        return isolated(frozenset(dists))

    only()
    return only


@pytest.fixture
def tiny_job(plugins: Callable[..., Registry], tmp_path: Path) -> TinyJob:
    """``tiny_job("dpo", train={"steps": 2})``: a job of seconds, its data written to ``tmp_path``.

    Sections that are mappings are merged into the job's own, others replace them. The data is what
    the method learns from.
    """
    from ptsdk.testing.jobs import job_values
    from ptsdk.testing.seen import from_environment

    def make(method: str | dict[str, Any] = "sft", **sections: Any) -> dict[str, Any]:
        return job_values(tmp_path, from_environment(), method, **sections)

    return make


@pytest.fixture
def run_job(plugins: Callable[..., Registry], tmp_path: Path) -> RunTheJob:
    """``run_job(tiny_job())``: train in this process; a ``ptsdk.RunResult``."""
    from ptsdk.testing.jobs import train
    from ptsdk.testing.seen import from_environment

    def run(job: dict[str, Any], *, resume: bool = False) -> RunResult:
        return train(job, from_environment(), tmp_path, resume=resume)

    return run
