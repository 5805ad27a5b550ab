"""A plugin written for the API before this one loads and trains; outside the window it is refused clearly."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import ptsdk
from ptsdk.cli.doctor import examine
from ptsdk.cli.main import main
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.specs import API
from tests.broken.dists import Dist
from tests.conftest import WriteJob, metrics

SAMPLE = Path(__file__).with_name("ptsdk_previous")
DIST = "ptsdk-previous"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sample as pip leaves it, and no other plugin."""
    site = tmp_path / "site"
    Dist(DIST, "").install(site)
    shutil.copytree(SAMPLE, site / SAMPLE.name, dirs_exist_ok=True)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PTSDK_PLUGINS", DIST)
    return site


def record() -> dict[str, Any]:
    return next(r for r in ptsdk.discover() if r["dist"] == DIST)


def test_the_sample_is_of_the_number_before() -> None:
    """When the number rises, keep a sample of what was current until then."""
    declared = re.search(r"^PTSDK_API = (\d+)$", (SAMPLE / "plugin.py").read_text("utf-8"), re.MULTILINE)
    assert declared is not None
    assert int(declared[1]) == API - 1


def test_it_loads_and_trains(
    installed: Path, job: dict[str, Any], write_job: WriteJob, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert (record()["status"], record()["api"]) == ("loaded", API - 1)
    job["train"]["steps"] = 2
    for name, loss in (("plain", "cross_entropy"), ("doubled", "doubled")):
        sections = {"loss": loss, "loggers": ["jsonl", "counted"], "output_dir": str(tmp_path / name)}
        assert main(["run", str(write_job(job | sections))]) == 0
        assert (tmp_path / name / "steps.txt").read_text() == "2"
    plain, doubled = (metrics(tmp_path / name)[0]["loss"] for name in ("plain", "doubled"))
    assert doubled == pytest.approx(2 * plain)


def test_it_is_told_what_to_do_before_it_is_refused(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    advice = f"written for API {API - 1}, accepted until API {API + 1}: pip install -U {DIST}, or ask its author"
    plugins = scan()
    checks = {check.name: check for check in examine(plugins, Registry(plugins))}
    assert (checks[f"plugin {DIST}"].ok, advice in checks[f"plugin {DIST}"].detail) == (True, True)
    assert main(["plugins"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.count(advice) == told.count("accepted until") == 1


@pytest.mark.parametrize(("current", "upgrade"), [(API + 1, DIST), (API - 2, "ptsdk")])
def test_outside_the_window_it_is_refused(
    current: int,
    upgrade: str,
    installed: Path,
    job: dict[str, Any],
    write_job: WriteJob,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("ptsdk._loading.API", current)
    monkeypatch.setattr("ptsdk.builtin.plugin.PTSDK_API", current)
    found = record()
    said = f"it was written for plugin API {API - 1}, this ptsdk has {current}: pip install -U {upgrade}"
    assert (found["status"], found["error"], found["components"]) == ("broken", said, [])
    assert main(["check", str(write_job(job | {"loss": "doubled"})), "--json"]) == 2
    captured = capsys.readouterr()
    faults = json.loads(captured.out)["errors"]
    assert {fault["path"] for fault in faults} == {"loss"}
    assert any(said in fault["message"] for fault in faults)
    assert f"plugin {DIST} 1.0 is broken and left out" in captured.err
