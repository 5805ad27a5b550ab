"""Fill a row's folder: ``python -m tests.benchmarks.prepare ROW FOLDER``. A process of its own, for it needs torch."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks.rows import ROWS

if __name__ == "__main__":
    name, folder = sys.argv[1:]
    ROWS[name].prepare(Path(folder))
