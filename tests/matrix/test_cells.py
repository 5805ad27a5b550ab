"""Every value of every axis with every value of every other, in CI; the whole product is slow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.matrix.cells import ALL, RESULTS, Cell, check, pairwise
from tests.matrix.refused import REFUSED, refusal

SLICE = pairwise()
REST = [cell for cell in ALL if cell not in SLICE]


@pytest.mark.parametrize("cell", SLICE, ids=str)
def test_cell(cell: Cell, tmp_path: Path) -> None:
    check(cell, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cell", REST, ids=str)
def test_cell_of_the_rest(cell: Cell, tmp_path: Path) -> None:
    check(cell, tmp_path)


def test_a_sound_job_is_not_refused() -> None:
    assert refusal({}) == []


@pytest.mark.parametrize("pair", REFUSED)
def test_what_cannot_work_is_refused_by_the_names_of_both(pair: str) -> None:
    (message,) = refusal(REFUSED[pair])
    assert all(name in message for name in pair.split(" + ")), message


def test_the_recorded_results_are_of_every_cell() -> None:
    results = json.loads(RESULTS.read_text("utf-8"))
    assert {name: cell["outcome"] for name, cell in results["cells"].items()} == {str(c): "passed" for c in ALL}
    assert results["refused"].keys() == REFUSED.keys()
