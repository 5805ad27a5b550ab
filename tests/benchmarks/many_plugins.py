"""Fifty plugins of which five are broken: what `ptsdk plugins` costs over a bare interpreter.

    python -m tests.benchmarks.many_plugins [--plugins 50] [--broken 5] [--repeat 5]

Prints a JSON object; seconds are the least of so many runs, over those of a bare interpreter. The ratio is to
`ptsdk plugins` before the fifty were there: it says more on another machine than the seconds do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.broken.dists import BROKEN, Dist, healthy

EVENTS = """
import sys
seen = {"open": 0, "listdir": 0}
def count(event, arguments):
    if event == "open" and ".dist-info" in str(arguments[0]):
        seen["open"] += 1
    elif event in ("os.listdir", "os.scandir"):
        seen["listdir"] += 1
sys.addaudithook(count)
from ptsdk.cli.main import main
code = main(["plugins", "--json"])
import json
print(json.dumps({**seen, "modules": len(sys.modules), "loaded": sorted(sys.modules)}), file=sys.stderr)
sys.exit(code)
"""
"""Runs `ptsdk plugins` and counts what it asks of the disk: metadata files opened, folders listed."""


def install(folder: Path, plugins: int, broken: int) -> list[Dist]:
    """So many dists, the first of them broken, each in its own way."""
    dists = [*BROKEN[:broken], *(healthy(f"ptsdk-n{i:03}", f"loss-{i}") for i in range(plugins - broken))]
    for dist in dists:
        dist.install(folder)
    return dists


def environment(folder: Path) -> dict[str, str]:
    """That of a process that has them installed, and none of this one's settings."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PTSDK_")}
    clean.pop("PYTHONDONTWRITEBYTECODE", None)
    return clean | {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One process of python; it must succeed."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=120, check=True)


@dataclass(frozen=True)
class Cost:
    """Seconds of a process: by the clock, and of the CPU, which busy neighbours do not change."""

    wall: float
    cpu: float


def least(folder: Path, repeat: int, *arguments: str) -> Cost:
    """The cheapest of some runs; the first, which writes bytecode, does not count."""
    costs = [cost(folder, *arguments) for _ in range(repeat + 1)][1:]
    return Cost(min(c.wall for c in costs), min(c.cpu for c in costs))


def cost(folder: Path, *arguments: str) -> Cost:
    """One process of python."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    python(folder, *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(time.perf_counter() - start, cpu)


def measured(plugins: int, broken: int, repeat: int) -> dict[str, float]:
    """A bare interpreter, and what core alone and all the plugins add to it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare = least(folder, repeat, "-c", "")
        core = least(folder, repeat, "-m", "ptsdk", "plugins")
        install(folder, plugins, broken)
        everything = least(folder, repeat, "-m", "ptsdk", "plugins")
    return {
        "plugins": plugins,
        "broken": broken,
        "bare_cpu_seconds": round(bare.cpu, 4),
        "added_cpu_seconds_before": round(core.cpu - bare.cpu, 4),
        "added_cpu_seconds": round(everything.cpu - bare.cpu, 4),
        "added_wall_seconds": round(everything.wall - bare.wall, 4),
        "ratio_to_before": round(everything.cpu / core.cpu, 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("plugins", 50), ("broken", 5), ("repeat", 5)):
        parser.add_argument(f"--{option}", type=int, default=default)
    print(json.dumps(measured(**vars(parser.parse_args())), indent=2))
