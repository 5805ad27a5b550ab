"""How long a checkpoint keeps our training waiting, and how long it takes to be written."""

from __future__ import annotations

import time
from typing import Any

import ptsdk
from ptsdk.train.saving import Saver
from tests.benchmarks.contestants.report import FOLDER, told


def main() -> None:
    save, spans = Saver.save, []

    def timed(self: Saver, *args: Any, **kwargs: Any) -> None:
        begun = time.time()
        save(self, *args, **kwargs)
        spans.append((begun, time.time()))

    Saver.save = timed  # type: ignore[method-assign]
    result = ptsdk.run(FOLDER / "job.yaml", overwrite=True)
    first = min((result.output_dir / "checkpoints").glob("step-*"))
    begun, returned = spans[0]  # the last one ends the run, which waits for it
    written = (first / "manifest.json").stat().st_mtime
    told(blocked_seconds=returned - begun, save_seconds=max(written, returned) - begun)


if __name__ == "__main__":
    main()
