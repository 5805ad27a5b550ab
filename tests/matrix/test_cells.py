"""Every value of every axis with every value of every other, in CI; the whole product is slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix.cells import ALL, Cell, check, pairwise

SLICE = pairwise()
REST = [cell for cell in ALL if cell not in SLICE]


@pytest.mark.parametrize("cell", SLICE, ids=str)
def test_cell(cell: Cell, tmp_path: Path) -> None:
    check(cell, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cell", REST, ids=str)
def test_cell_of_the_rest(cell: Cell, tmp_path: Path) -> None:
    check(cell, tmp_path)
