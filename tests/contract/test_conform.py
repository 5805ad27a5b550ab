"""``ptsdk conform`` on the packages of the repository, as a stranger would run it."""

from __future__ import annotations

import json

import pytest

from ptsdk.cli.main import main
from ptsdk.plugins import scan

DISTS = sorted(record.dist for record in scan().records)
QUICK = "ptsdk-llama"


def check(dist: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["conform", dist, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0 and report["ok"], report
    contributed = {record["dist"]: record["components"] for record in scan().as_json()}[dist]
    about = [(suite["kind"], suite["component"]) for suite in report["suites"]]
    assert about == [("plugin", dist), *((one["kind"], one["name"]) for one in contributed)]
    assert all(suite["passed"] and not suite["failed"] for suite in report["suites"])


def test_a_package_conforms(capsys: pytest.CaptureFixture[str]) -> None:
    check(QUICK, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("dist", [dist for dist in DISTS if dist != QUICK])
def test_every_package_conforms(dist: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(dist, capsys)
