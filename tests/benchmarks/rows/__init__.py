"""The rows, by name, in the order of the page."""

from __future__ import annotations

from tests.benchmarks.row import Row
from tests.benchmarks.rows import around, beyond, gpu, sft

ROWS: dict[str, Row] = {row.name: row for row in (*sft.ROWS, *beyond.ROWS, *around.ROWS, *gpu.ROWS)}
