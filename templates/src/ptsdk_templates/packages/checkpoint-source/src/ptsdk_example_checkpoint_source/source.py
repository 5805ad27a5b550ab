"""The source itself, imported when a path begins with ``example-checkpoint-source://``."""

from __future__ import annotations

import os
from pathlib import Path

from ptsdk.contracts.checkpoint import CheckpointSource
from ptsdk.errors import UserError

ROOT = "MODEL_SHELF"


class ExampleSource(CheckpointSource):
    """``example-checkpoint-source://team/model``: a folder or file below the one that $MODEL_SHELF names.

    A source gives back a local path, downloaded if need be; which format lies there is not its concern.
    """

    def fetch(self, url: str, *, weights: bool = True) -> Path:
        """The path. A source that downloads leaves weights out where they are not wanted.

        Raises:
            UserError: the variable is not set, or there is nothing below it at that place.
        """
        root = os.environ.get(ROOT)
        if not root:
            raise UserError(f"{url}: {ROOT} is not set", hint=f"export {ROOT}=/folder/of/models")
        shelf = Path(root).resolve()
        path = (shelf / url.partition("://")[2]).resolve()
        if not path.is_relative_to(shelf):  # a URL may come from anywhere: it must not reach other files
            raise UserError(f"{url} leads out of {shelf}", hint="name something below it")
        if not path.exists():
            raise UserError(f"{url}: there is no {path}", hint=f"{ROOT} is {root}")
        return path
