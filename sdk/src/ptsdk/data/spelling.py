"""A data set in plain words, so that another process can make the same one."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ptsdk._importing import import_file, is_plain, mixed_in

if TYPE_CHECKING:
    from ptsdk.contracts.dataset import Dataset

LOCAL = "ptsdk_local_"
"""How modules are named that were made of a file."""


def spelled(dataset: Dataset) -> dict[str, Any] | None:
    """Class and options of ``dataset`` for ``built``; None where they do not make the same again, as of one that
    holds other components, or was made in a script."""
    cls, options = type(dataset), dataset.model_dump(mode="json")
    module = sys.modules.get(cls.__module__)
    found = getattr(module, cls.__name__, None)
    if cls.__module__ == "__main__" or not (found is cls or is_plain(found, "dataset")):
        return None
    try:
        if cls.model_validate(options) != dataset:
            return None
    except ValidationError:
        return None
    file = getattr(module, "__file__", None) if cls.__module__.startswith(LOCAL) else None
    return {"module": cls.__module__, "name": cls.__name__, "file": file, "options": options}


def built(module: str, name: str, file: str | None, options: dict[str, Any]) -> Dataset:
    """The data set that ``spelled`` told of.

    Raises:
        ImportError: its file is not what it was.
    """
    found = getattr(import_module(module), name) if file is None else _of_file(module, name, file)
    cls = mixed_in(found, "dataset") if is_plain(found, "dataset") else found
    dataset: Dataset = cls.model_validate(options)
    return dataset


def _of_file(module: str, name: str, file: str) -> Any:
    found: Any = import_file(f"{file}:{name}", Path())[0]
    if found.__module__ != module:  # it is named by its text
        raise ImportError(f"{file} has been changed")
    return found
