"""Fill a row's folder: ``python -m tests.benchmarks.prepare MODULE:FUNCTION FOLDER``, apart, for it needs torch."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    target, folder = sys.argv[1:]
    module, _, function = target.partition(":")
    getattr(import_module(module), function)(Path(folder))
