"""The public surface of ptsdk as lines of text, kept in ``api.txt``: nothing of it changes unannounced.

python docs/surface.py              what differs from api.txt; exit code 1 when something does
python docs/surface.py --accept     take what was added into api.txt
python docs/surface.py --breaking   take what was removed or changed, too: see compatibility.md first
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import FunctionType
from typing import Any, Literal, get_origin

from pydantic import BaseModel

from ptsdk.hookspecs import Contributions, RunEvents
from ptsdk.job.schema import job_schema
from ptsdk.plugins import DiscoveryOptions, scan
from ptsdk.registry import Registry
from ptsdk.specs import API, KINDS

FILE = Path(__file__).with_name("api.txt")
PACKAGES = ("ptsdk.contracts", "ptsdk.nn")
MODULES = (
    "ptsdk",
    "ptsdk.specs",
    "ptsdk.hookspecs",
    "ptsdk.errors",
    "ptsdk.data.example",
    "ptsdk.data.rows",
    "ptsdk.data.tokenizer",
    "ptsdk.data.tokenizers",
    "ptsdk.generate.sampling",
    "ptsdk.builtin.datasets",
    "ptsdk.builtin.full",
    "ptsdk.builtin.optimizers",
    "ptsdk.builtin.sft",
    "ptsdk.builtin.single",
    "ptsdk.checkpoint.weights",
    "ptsdk.testing",
)
"""What a plugin may import, beside every module of ``PACKAGES``."""


def surface() -> list[str]:
    """One line a name, sorted within its module; the API number first."""
    lines = [f"api {API}"]
    lines += [f"kind {k.name}: hook {k.hook}, spec {k.spec.__name__}, contract {k.contract}" for k in KINDS.values()]
    for hooks in (Contributions, RunEvents):
        lines += [f"hook {name}{_signature(hook)}" for name, hook in vars(hooks).items() if not name.startswith("_")]
    for module in _modules():
        lines += sorted(_module(module))
    return lines + job_options(job_schema(Registry(scan(DiscoveryOptions(safe=True))))[0])


def job_options(schema: dict[str, Any]) -> list[str]:
    """One line a key of the job file and an option of core's components: what values it takes, with their
    bounds, and the default."""
    lines = []
    for section, table in {"": schema, **schema["$defs"]}.items():
        for name, option in table.get("properties", {}).items():
            required = " required" * (name in table.get("required", ()))
            lines.append(f"job {section}{'.' * bool(section)}{name}{required}: {json.dumps(_values(option))}")
    return lines


def _values(node: Any) -> Any:
    """A schema without what is told about it, and without the ``${env:NAME}`` that every value may be."""
    if isinstance(node, list):
        return [_values(item) for item in node if item != {"$ref": "#/$defs/environment"}]
    if not isinstance(node, dict):
        return node
    kept = {key: _values(value) for key, value in sorted(node.items()) if key != "description"}
    choices = kept.get("anyOf", ())
    return (
        {**{key: value for key, value in kept.items() if key != "anyOf"}, **choices[0]} if len(choices) == 1 else kept
    )


def differences(old: list[str], new: list[str]) -> tuple[list[str], list[str]]:
    """(lines that are gone, lines that are new)."""
    changes = [line for line in difflib.ndiff(old, new) if line[0] in "-+"]
    return [c[2:] for c in changes if c[0] == "-"], [c[2:] for c in changes if c[0] == "+"]


def _modules() -> Iterator[str]:
    yield from MODULES
    for package in PACKAGES:
        yield from sorted(f"{package}.{found.name}" for found in iter_modules(import_module(package).__path__))


def _module(name: str) -> Iterator[str]:
    module = import_module(name)
    for key in getattr(module, "__all__", list(vars(module))):
        value = getattr(module, key)
        if key.startswith("_") or inspect.ismodule(value):
            continue
        defined = getattr(value, "__module__", name) == name or hasattr(module, "__all__")
        if isinstance(value, type) and defined:
            yield from _class(f"{name}.{key}", value)
        elif isinstance(value, FunctionType) and defined:
            yield f"{name}.{key}{_signature(value)}"
        elif (isinstance(value, int | str) and key.isupper()) or get_origin(value) is Literal:
            yield f"{name}.{key} = {value!r}"


def _class(name: str, cls: type) -> Iterator[str]:
    """A class with its bases, its options or fields, and the methods it defines itself."""
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    yield f"{name}{_signature(cls) if is_dataclass(cls) else ''}{f' is {bases}' if bases else ''}"
    if not is_dataclass(cls):  # of a dataclass the signature says it, in the order that positions have
        yield from (f"{name}.{field}" for field in _fields(cls))
    abstract = getattr(cls, "__abstractmethods__", frozenset())
    for key, value in vars(cls).items():
        if key.startswith("_") and key != "__call__":
            continue
        mark = " abstract" * (key in abstract) + f" {type(value).__name__}" * isinstance(
            value, classmethod | staticmethod
        )
        function = getattr(value, "__func__", value)
        if isinstance(value, property):
            yield f"{name}.{key}: property{mark}"
        elif isinstance(function, FunctionType):
            yield f"{name}.{key}{_signature(function)}{mark}"


def _fields(cls: type) -> Iterator[str]:
    """The annotated attributes; an option of a component with its default."""
    options = cls.model_fields if issubclass(cls, BaseModel) else {}
    for name, annotation in vars(cls).get("__annotations__", {}).items():
        if not name.startswith("_"):
            option = options.get(name)
            default = "" if option is None or option.is_required() else f" = {option.get_default()!r}"
            yield f"{name}: {annotation}{default}"


def _signature(function: Any) -> str:
    """Without the quotes that postponed annotations have."""
    quoted = r"(?P<before>: |-> )(?P<quote>['\"])(?P<annotation>.*?)(?P=quote)(?=[,) ]|$)"
    return re.sub(quoted, r"\g<before>\g<annotation>", str(inspect.signature(function)))


def main(arguments: list[str]) -> int:
    """Compare, or write what may be written."""
    new = surface()
    gone, added = differences(FILE.read_text("utf-8").splitlines() if FILE.exists() else [], new)
    if not gone and not added:
        print("the public surface is as announced")
        return 0
    print("\n".join([*(f"- {line}" for line in gone), *(f"+ {line}" for line in added)]))
    if "--breaking" in arguments or ("--accept" in arguments and not gone):
        FILE.write_text("\n".join(new) + "\n", "utf-8")
        print(f"wrote {FILE.name}: say in CHANGELOG.md what changed")
        return 0
    print("what was removed or changed breaks plugins: docs/compatibility.md" if gone else "new: announce it, --accept")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
