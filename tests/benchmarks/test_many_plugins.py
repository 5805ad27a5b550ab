"""What discovery asks of the machine grows with the number of plugins and by little: counted, not timed.

`python -m tests.benchmarks.many_plugins` measures the seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.many_plugins import EVENTS, install, python

HEAVY = {"torch", "transformers", "datasets", "pydantic", "numpy", "yaml", "rich"}


def counted(folder: Path, plugins: int, broken: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records of `ptsdk plugins`, and what the second run of it asked of the machine."""
    folder.mkdir()
    install(folder, plugins, broken)
    python(folder, "-c", EVENTS)  # writes bytecode
    done = python(folder, "-c", EVENTS)
    records = [r for r in json.loads(done.stdout) if r["dist"].startswith(("ptsdk-n", "ptsdk-x"))]
    return records, json.loads(done.stderr.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[list[dict[str, Any]], dict[str, Any]]]:
    root = tmp_path_factory.mktemp("many")
    return {plugins: counted(root / str(plugins), plugins, plugins // 10) for plugins in (0, 50)}


def test_fifty_plugins_are_told_apart_from_five_broken_ones(runs: Any) -> None:
    records, _ = runs[50]
    assert [r["status"] for r in records].count("broken") == 5
    assert [r["status"] for r in records].count("loaded") == 45
    assert all(len(r["components"]) == 1 for r in records if r["status"] == "loaded")


def test_nothing_heavy_is_loaded(runs: Any) -> None:
    assert not HEAVY & set(runs[50][1]["loaded"])


def test_a_plugin_costs_two_modules_and_its_metadata(runs: Any) -> None:
    """Its package and its plugin.py; its entry points and, for name and version, its METADATA."""
    none, fifty = runs[0][1], runs[50][1]
    assert fifty["modules"] - none["modules"] <= 2 * 50
    assert fifty["open"] - none["open"] <= 4 * 50
    assert fifty["listdir"] - none["listdir"] <= 2 * 50 + 5  # not folders x plugins


def test_each_file_of_metadata_is_opened_once_or_twice(runs: Any, tmp_path: Path) -> None:
    """However many other dists there are: a scan a plugin would be quadratic."""
    opened = {n: counted(tmp_path / str(n), n, 0)[1]["open"] for n in (10, 20, 40)}
    assert opened[40] - opened[20] == 2 * (opened[20] - opened[10])
