"""The kit can fail: every standard test catches the component made for it, and nothing else does."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from ptsdk.specs import KINDS
from ptsdk.testing import SUITES
from ptsdk.testing.running import Outcome, run_file
from tests.broken.sabotage.catalogue import ALL, Sabotage

DIST = "ptsdk-sabotaged"
FILE = """
import ptsdk.testing

for name, suite in ptsdk.testing.suites_of({dist!r}).items():
    if suite.kind == {kind!r}:
        globals()[name] = suite
"""
COMMON = "schedule"
"""The kind whose components fail what is asked of all kinds."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dist, as pip leaves an editable one on disk."""
    folder = tmp_path_factory.mktemp("dist")
    info = folder / f"{DIST.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    requires = "Requires-Dist: ptsdk>=0.1\nRequires-Dist: ptsdk-kd\n"
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {DIST}\nVersion: 1.0\n{requires}")
    (info / "entry_points.txt").write_text("[ptsdk]\nsabotaged = tests.broken.sabotage.plugin\n")
    return folder


@cache
def outcomes(kind: str) -> dict[str, Outcome]:
    """Of every sabotaged component of a kind, run together."""
    return {outcome.component: outcome for outcome in run_file(FILE.format(dist=DIST, kind=kind))}


@pytest.mark.parametrize(
    "sabotage",
    [
        pytest.param(one, marks=pytest.mark.xdist_group(f"sabotage-{one.kind}"), id=f"{one.kind}-{one.name}")
        for one in ALL
    ],
)
def test_is_caught_by_its_test_alone(sabotage: Sabotage, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    assert metadata.version(DIST) == "1.0"
    outcome = outcomes(sabotage.kind)[sabotage.name]
    assert list(outcome.failed) == [sabotage.caught_by], outcome.failed


@pytest.mark.parametrize("kind", KINDS)
def test_every_standard_test_has_its_sabotage(kind: str) -> None:
    import ptsdk.testing
    from ptsdk.testing.suite import ComponentSuite, Suite, standard_tests

    suite: type[Suite] = getattr(ptsdk.testing, SUITES[kind][1])
    tests = set(standard_tests(suite)) - set(standard_tests(Suite))
    if kind != COMMON:
        tests -= set(standard_tests(ComponentSuite))
    if kind == "callback":
        tests -= set(standard_tests(ptsdk.testing.LoggerSuite))
    assert tests == {one.caught_by for one in ALL if one.kind == kind}
