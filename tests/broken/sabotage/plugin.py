"""The plugin of a dist that contributes all of them: ``ptsdk-sabotaged``."""

from __future__ import annotations

from typing import Any

from ptsdk.specs import KINDS
from tests.broken.sabotage.catalogue import ALL

PTSDK_API = 1


def _specs(kind: str) -> list[Any]:
    make: Any = KINDS[kind].spec
    return [make(one.name, one.target, f"Fails {one.caught_by}", **one.spec) for one in ALL if one.kind == kind]


def _hook(kind: str) -> Any:
    return lambda: _specs(kind)


globals().update({KINDS[kind].hook: _hook(kind) for kind in KINDS})
