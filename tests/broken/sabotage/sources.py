"""Sources of checkpoints."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ptsdk.contracts.checkpoint import CheckpointSource
from ptsdk.errors import UserError


class NoScheme(CheckpointSource):
    def fetch(self, url: str, *, weights: bool = True) -> Path:
        raise UserError(f"{url} is not there")


class Inventing(CheckpointSource):
    def fetch(self, url: str, *, weights: bool = True) -> Path:
        return Path(url)


class ElsewhereEachTime(CheckpointSource):
    example_url = "sabotage://here"

    def fetch(self, url: str, *, weights: bool = True) -> Path:
        if url != self.example_url:
            raise UserError(f"{url} is not there")
        return Path(tempfile.mkdtemp(dir="."))
