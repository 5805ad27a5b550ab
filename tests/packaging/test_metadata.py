"""What every dist of the workspace says about itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ptsdk
from tests.packaging.dists import FOLDERS, IDS, ROOT, closure, project

pytestmark = pytest.mark.parametrize("folder", FOLDERS, ids=IDS)


def test_one_version_and_one_license(folder: Path) -> None:
    table = project(folder)
    assert table["version"] == ptsdk.__version__
    assert table["license"] == "BSD-3-Clause"
    assert (folder / "LICENSE").read_text("utf-8") == (ROOT / "LICENSE").read_text("utf-8")
    assert (folder / table["readme"]).read_text("utf-8").startswith(f"# {table['name']}\n")
    assert table["description"]


def test_requirements_have_no_upper_bound(folder: Path) -> None:
    table = project(folder)
    extras = [one for each in table.get("optional-dependencies", {}).values() for one in each]
    for one in map(Requirement, [*table["dependencies"], *extras]):
        assert {bound.operator for bound in one.specifier} <= {">=", "!="}, one
        assert one.url is None, one


def test_a_plugin_requires_the_core_and_has_one_entry_point(folder: Path) -> None:
    table = project(folder)
    points = table.get("entry-points", {}).get("ptsdk", {})
    if table["name"] == "ptsdk":
        assert not points
        return
    assert f"ptsdk>={ptsdk.__version__}" in table["dependencies"]
    assert list(points.values()) == [f"{table['name'].replace('-', '_')}.plugin"]


def test_the_oracles_are_for_tests_alone(folder: Path) -> None:
    ours, others = closure([project(folder)["name"]])
    assert not {"transformers", "trl", "peft", "accelerate"} & others
    assert "ptsdk" in ours
