"""Run the bench: every row by ptsdk and its peers in turn, each in a process of its own; see docs/benchmarks.md.

    python -m tests.benchmarks.bench [--rows sft-full,sft-lora] [--rounds 3]

`make bench` makes the environments first and the page afterwards. A row's results replace that row of
``results.json``. To run one contestant alone, say under a profiler, once the bench has made the row's folder:

    PYTHONPATH=. .venv-peers/bin/python -m tests.benchmarks.contestants.trl_sft runs/bench/sft-full
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from tests.benchmarks.inputs import ROOT, WORK
from tests.benchmarks.row import Contestant, Output, Row
from tests.benchmarks.rows import ROWS

RESULTS = Path(__file__).parent / "results.json"
LINEAR = Contestant("linear")


def environment() -> dict[str, str]:
    """Alike for all: as many threads as there are cores, no network, none of this machine's settings of ptsdk."""
    threads = str(os.cpu_count())
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PTSDK_", "PYTHON"))}
    return clean | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }


def process(python: str, *arguments: str) -> str:
    """stdout of a process of python, which must succeed."""
    # From a small process: on Linux a child's peak of resident memory starts at its parent's.
    done = subprocess.run([python, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{python} {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def run(contestant: Contestant, folder: Path) -> Output:
    """What a contestant says of one round: a JSON object, the last line it prints."""
    python = str(ROOT / contestant.venv / "bin" / "python") if contestant.venv else sys.executable
    module = f"tests.benchmarks.contestants.{contestant.script}"
    output: Output = json.loads(process(python, "-m", module, str(folder), *contestant.arguments).splitlines()[-1])
    return output


def bench(row: Row, rounds: int, work: Path = WORK) -> dict[str, Any]:
    """Prepare the row, go through its contestants so many times, and judge them."""
    folder = work / row.name
    folder.mkdir(parents=True, exist_ok=True)
    prepare = f"{row.prepare.__module__}:{row.prepare.__name__}"
    process(sys.executable, "-m", "tests.benchmarks.prepare", prepare, str(folder))
    outputs: dict[str, list[Output]] = {name: [] for name in row.contestants}
    rates: list[float] = []
    for number in range(rounds):
        rates.append(run(LINEAR, folder)["flops_per_second"])
        for name, contestant in row.contestants.items():
            print(f"{row.name}: round {number + 1} of {rounds}, {name}", file=sys.stderr, flush=True)
            outputs[name].append(run(contestant, folder))
    checked = {key: value for check in row.checks for key, value in run(check, folder).items() if key != "versions"}
    result = row.result(folder, outputs, checked, max(rates))
    if row.profile and not all(hold["reached"] for hold in result["holds"]):
        result["profile"] = run(row.profile, folder)["operations"]
    return {"date": date.today().isoformat(), "rounds": rounds, "slowest_linear": min(rates), **result}


def machine() -> dict[str, Any]:
    """Where this runs: what changes a number."""
    return {
        "processor": processor(),
        "gpu": gpu(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def processor() -> str:
    """The model of the CPU, and the widest vectors it has."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    fields = dict(reversed([tuple(map(str.strip, line.partition(":")[::2])) for line in lines]))
    vectors = [name for name in ("avx512f", "avx2") if name in fields.get("flags", "").split()]
    return " ".join([fields.get("model name") or platform.processor() or "unknown", *vectors[:1]])


def gpu() -> str | None:
    """The model of the first GPU, as its driver's own program says; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    names = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")
    return names[0].strip() or None


def measured_here() -> list[str]:
    """The rows of a GPU where there is one, else those of a CPU."""
    device = "cuda" if gpu() else "cpu"
    return [name for name, row in ROWS.items() if row.device == device]


def store(name: str, result: dict[str, Any]) -> None:
    """Put the row in the place of what was recorded of it."""
    recorded = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    known = {**recorded, name: {**result, "machine": machine()}}
    ordered = {row: known[row] for row in ROWS if row in known}
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Rows one after the other; what is measured is kept, whatever becomes of the next row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(measured_here()), help="names, with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    names = options.rows.split(",")
    if unknown := set(names) - set(ROWS):
        sys.exit(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if absent := set(names) - set(measured_here()):
        sys.exit(f"{', '.join(sorted(absent))}: for another device; here are {', '.join(measured_here())}")
    for name in names:
        result = bench(ROWS[name], options.rounds)
        store(name, result)
        print(json.dumps({name: result}, indent=1), flush=True)


if __name__ == "__main__":
    main()
