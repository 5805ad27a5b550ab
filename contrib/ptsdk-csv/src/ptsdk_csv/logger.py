"""Metrics for a spreadsheet: a file of steps and one of validations, a column a metric."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ptsdk.contracts.events import Logger

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run


class Csv(Logger):
    """``steps.csv`` and ``validations.csv`` in the output directory; a row is on disk when its step ends.

    A column is a metric. One that is first seen later gets a column then, empty in the rows above it.
    """

    delimiter: str = Field(",", min_length=1, max_length=1, description="what stands between two columns")

    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """A row of ``steps.csv``."""
        self._append(run.output_dir / "steps.csv", metrics)

    def validation(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """A row of ``validations.csv``."""
        self._append(run.output_dir / "validations.csv", metrics)

    def _append(self, path: Path, row: Mapping[str, float]) -> None:
        """Add a row. The file itself says which columns there are, so a resumed run goes on in it."""
        columns = self._columns(path)
        new = [name for name in row if name not in columns]
        if new:
            self._widen(path, [*columns, *new])
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, [*columns, *new], delimiter=self.delimiter).writerow(row)

    def _columns(self, path: Path) -> list[str]:
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file, delimiter=self.delimiter), [])

    def _widen(self, path: Path, columns: list[str]) -> None:
        """The same rows below more columns; the old file is replaced whole or not at all."""
        rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file, delimiter=self.delimiter))
        wider = path.with_suffix(".csv.new")
        with wider.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, delimiter=self.delimiter)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(wider, path)
