"""What every contestant measures with and how it says so. Standard library alone: it runs in every venv."""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
"""Of the row."""
COMPARED = (
    "ptsdk", "torch", "transformers", "trl", "peft", "bitsandbytes", "liger-kernel", "torchtune", "torchao",
)  # fmt: skip


def row() -> dict[str, Any]:
    return json.loads((FOLDER / "row.json").read_text(encoding="utf-8"))


def items() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / "items.jsonl").read_text(encoding="utf-8").splitlines()]


def peak_bytes() -> int:
    """The most memory at a time: allocated on the GPU where there is one, else resident in this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> dict[str, str]:
    """Of what is compared, as far as it is installed here."""
    found = {}
    for name in COMPARED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def told(**values: Any) -> None:
    """Print the result, the last line of stdout."""
    print(json.dumps({**values, "versions": versions()}), flush=True)


class Clock:
    """Seconds of each step, from the end of the one before; its loss; the memory it came to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.peak = 0
        self.start()

    def start(self) -> None:
        self.last = time.perf_counter()

    def step(self, loss: float) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.losses.append(loss)
        self.peak = peak_bytes()
        self.last = time.perf_counter()

    def tell(self, **more: Any) -> None:
        told(seconds=self.seconds, losses=self.losses, peak_bytes=self.peak, **more)
