"""What a run hands back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunResult:
    """Where a finished run left its files.

    Attributes:
        output_dir: the run directory.
        final_dir: the exported model or adapter.
        steps: optimizer steps taken in all, before a resume included.
        metrics: the last value of every metric.
        stopped: why a callback ended the run before its last step, None where none did.
    """

    output_dir: Path
    final_dir: Path
    steps: int
    metrics: dict[str, float]
    stopped: str | None = None
