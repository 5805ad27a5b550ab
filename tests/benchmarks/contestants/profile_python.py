"""Where the time of what is around training goes, by cProfile: ``profile_python.py FOLDER {load|tokenize}``.

Each function's own time counts for where it is defined: a package of ours, another's, or a built-in function by name.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.contestants.profile import MOST
from tests.benchmarks.contestants.report import FOLDER, row, told

FEW = 2000
"""Rows of one process: of more, workers encode, into which a profile does not see."""


def load() -> Callable[[], object]:
    """As the contestant ``load``."""
    from tests.benchmarks.contestants.load import ptsdk

    read, folder = ptsdk(), Path(row()["model"])
    return lambda: [tensor.detach().sum() for tensor in read(folder)]


def tokenize() -> Callable[[], object]:
    """As the contestant ``tokenize_rows``, of fewer rows, without what a start before has kept."""
    import torch._dynamo  # noqa: F401

    from ptsdk.job import load_job
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry
    from ptsdk.train.assemble import assemble

    registry = Registry(scan())
    return lambda: assemble(load_job(FOLDER / "job.yaml", (f"data.train.limit={FEW}",), registry), registry)


def main() -> None:
    with tempfile.TemporaryDirectory() as caches:
        os.environ["XDG_CACHE_HOME"] = caches
        work = {"load": load, "tokenize": tokenize}[sys.argv[2]]()
        with cProfile.Profile() as profile:
            work()
    spent: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        spent[place(file, name)] += own
    told(operations={name: seconds / spent.total() for name, seconds in spent.most_common(MOST)})


def place(file: str, name: str) -> str:
    """``ptsdk.data``, ``jinja2``, or the name of a built-in function."""
    if not file.endswith(".py"):
        bare = name.strip("<>").removeprefix("built-in method ").removeprefix("method ")
        return bare.replace("'", "").removesuffix(" objects")
    parts = Path(file).with_suffix("").parts
    roots = [i for i, part in enumerate(parts) if part in ("site-packages", "src") or part.startswith("python3.")]
    inside = parts[roots[-1] + 1 :] if roots else parts[-1:]
    return ".".join(inside[:2] if inside[0].startswith("ptsdk") else inside[:1])


if __name__ == "__main__":
    main()
