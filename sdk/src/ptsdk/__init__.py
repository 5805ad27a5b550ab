"""ptsdk: post-training of large language models, assembled from plugins.

The names below are imported on use: ``import ptsdk`` loads neither torch nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ptsdk.hookspecs import hookimpl
from ptsdk.specs import API, Spec

if TYPE_CHECKING:
    from ptsdk.api import RunResult, load_model, logits, run
    from ptsdk.plugins import discover

__version__ = "0.1.0"
__all__ = ["API", "RunResult", "Spec", "__version__", "discover", "hookimpl", "load_model", "logits", "run"]

_LAZY = {
    "RunResult": "ptsdk.api",
    "load_model": "ptsdk.api",
    "logits": "ptsdk.api",
    "run": "ptsdk.api",
    "discover": "ptsdk.plugins",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ptsdk' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
