"""Running a plugin's own code during discovery: whatever it does wrong becomes a ``Fault``."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

HEAVY = ("torch", "transformers", "datasets", "pydantic")
"""What discovery must not import: `ptsdk --help` answers in a fraction of a second."""

_MACHINERY = ("<frozen", str(importlib.__file__), str(Path(__file__).with_name("_")))
"""Files that import a plugin on our behalf: the fault is in none of them."""


class Fault(Exception):
    """What is wrong with a plugin, and what its author writes instead."""


class _HeavyImport(BaseException):
    """Unwinds an import that reached a heavy library. No ``Exception``: code that tries an optional
    import must not go on without it and stay loaded in that state."""


class _Refusal(Loader):
    """Stands for a heavy library: it can be found, as before, but importing it is refused."""

    def __init__(self, attempts: list[str]) -> None:
        self.attempts = attempts

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.attempts.append(spec.name)
        raise _HeavyImport(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Never reached; without it the import system takes the loader for one of the old protocol."""


class _Light(MetaPathFinder):
    """Refuses the heavy libraries that this process has not loaded yet."""

    def __init__(self) -> None:
        self.attempts: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in HEAVY or PathFinder.find_spec(name) is None:
            return None
        return ModuleSpec(name, _Refusal(self.attempts))


@contextmanager
def guarded(failed: str) -> Iterator[None]:
    """Run a plugin's own code: whatever it raises (``sys.exit`` and a Rust panic too, ctrl-c not) or
    loads is a ``Fault``, and what it prints goes to stderr, so that ``--json`` stays one document."""
    light = _Light()
    sys.meta_path.insert(0, light)
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (Fault, KeyboardInterrupt):
        raise
    except BaseException as error:
        if not light.attempts:
            raise Fault(f"{failed}: {explain(error)}") from error
    finally:
        sys.meta_path.remove(light)
    if light.attempts:
        raise Fault(
            f"{failed}: it imports {light.attempts[0]} while it is being discovered. A plugin's module may import "
            "ptsdk.specs and the standard library; import the rest in the modules of its components"
        )


def explain(error: BaseException) -> str:
    """The error on one line, with the place it was raised."""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001  a plugin's own exception may not even say what it is
        said = "(its message cannot be made)"
    text = " ".join(f"{type(error).__name__}: {said}".split())
    if isinstance(error, SyntaxError):
        return text
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_MACHINERY)]
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text
