"""What commands cost beyond a bare interpreter: ``starts.py FOLDER {ptsdk|trl|torchtune}``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.contestants.report import told

PLUGINS, REPEAT, REPEAT_THEIRS = 20, 5, 1
COMMANDS = {"trl": "trl", "torchtune": "tune"}


def seconds(*command: str) -> float:
    """Of the fastest of some runs; the first one, which writes bytecode, does not count."""
    times = []
    for _ in range(REPEAT_THEIRS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def ours() -> dict[str, float]:
    from tests.benchmarks.many_plugins import EVENTS, install, least, python

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder, PLUGINS, 0)
        bare = least(folder, REPEAT, "-c", "")
        shown = {
            "help": least(folder, REPEAT, "-m", "ptsdk", "--help"),
            "plugins": least(folder, REPEAT, "-m", "ptsdk", "plugins"),
        }
        loaded = python(folder, "-c", EVENTS).stderr
    added = {f"added_by_{command}_seconds": cost.wall - bare.wall for command, cost in shown.items()}
    return {**added, "loads_torch": float('"torch"' in loaded)}


def theirs(command: str) -> dict[str, float]:
    bare = seconds(sys.executable, "-c", "")
    return {"added_by_help_seconds": seconds(str(Path(sys.executable).with_name(command)), "--help") - bare}


def main() -> None:
    name = sys.argv[2]
    told(**(ours() if name == "ptsdk" else theirs(COMMANDS[name])))


if __name__ == "__main__":
    main()
