"""What pydantic found, in the words of the job file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ptsdk.job.source import Keys

MAX_SHOWN = 60


@dataclass(frozen=True)
class Fault:
    """One fault, placed relative to the section it was found in.

    ``expected`` is set where a value of another type was given: what several alternatives expect is
    joined to one message.
    """

    keys: Keys
    message: str
    hint: str = ""
    expected: str = ""

    def inside(self, keys: Keys) -> Fault:
        """The same fault, seen from a section that holds this one at ``keys``."""
        return Fault((*keys, *self.keys), self.message, self.hint, self.expected)


class Faults(ValueError):
    """Everything wrong with one component; a ValueError, so that pydantic goes on to the next."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


def faults_of(error: ValidationError, model: type[BaseModel], raw: object) -> list[Fault]:
    """One fault a key, from what pydantic says of ``raw`` read as ``model``."""
    found: dict[Keys, list[Fault]] = {}
    for details in error.errors(include_url=False):
        for fault in _translate(details, model, raw):
            found.setdefault(fault.keys, []).append(fault)
    return [fault for faults in found.values() for fault in _joined(faults)]


def misplaced_bools(model: type[BaseModel], raw: Mapping[str, Any]) -> Iterator[Fault]:
    """``true`` where a number is meant: to pydantic it is 1."""
    for name, field in model.model_fields.items():
        if isinstance(raw.get(name), bool) and _takes_number(field.annotation):
            yield Fault((name,), f"expected a number, got {shown(raw[name])}")


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not among ``known``: the closest one, else all of them."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, 1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known here: {', '.join(choices)}" if choices else ""


def shown(value: object) -> str:
    """A value as YAML would spell it in a line, cut to a readable length."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "a string",
    "finite_number": "a finite number",
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "a mapping"),
    "none_required": "null",
    "path_type": "a path",
}
_BOUNDS = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", ">="), "less_than": ("lt", "<"),
           "less_than_equal": ("le", "<="), "multiple_of": ("multiple_of", "a multiple of")}  # fmt: skip


def _translate(details: Any, model: type[BaseModel], raw: object) -> Iterator[Fault]:
    keys, holders = _locate(details["loc"], details["type"], model, raw)
    inner = details.get("ctx", {}).get("error")
    if isinstance(inner, Faults):
        yield from (fault.inside(keys) for fault in inner.faults)
    elif details["type"] == "missing" and isinstance(keys[-1], int):
        yield Fault(keys[:-1], f"{shown(details['input'])} is too short: item {keys[-1] + 1} is missing")
    elif details["type"] == "missing":
        yield Fault(keys, f"missing{_meaning(holders, str(keys[-1]))}", f"add `{keys[-1]}: ...`")
    elif details["type"] == "extra_forbidden":
        known = {name for holder in holders for name in holder.model_fields}
        yield Fault(keys, f"unknown key `{keys[-1]}`", suggest(str(keys[-1]), known) or "there are no options here")
    else:
        yield _wrong_value(keys, details)


def _wrong_value(keys: Keys, details: Any) -> Fault:
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    if kind in _EXPECTED:
        return _expected(keys, _EXPECTED[kind], value)
    if kind in _BOUNDS:
        key, sign = _BOUNDS[kind]
        return Fault(keys, f"must be {sign} {context[key]}, got {shown(value)}")
    if kind in ("literal_error", "enum"):
        several = "one of " if " or " in context["expected"] else ""
        return _expected(keys, f"{several}{context['expected']}", value, _close(value, context["expected"]))
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return Fault(keys, message[:1].lower() + message[1:])


def _expected(keys: Keys, expected: str, value: object, hint: str = "") -> Fault:
    return Fault(keys, f"expected {expected}, got {shown(value)}", hint, expected)


def _close(value: object, expected: str) -> str:
    choices = [part.strip("' ") for part in expected.replace(" or ", ", ").split(",")]
    close = difflib.get_close_matches(str(value), choices, 1)
    return f"did you mean `{close[0]}`?" if close else ""


def _joined(faults: list[Fault]) -> list[Fault]:
    """One fault out of what the members of a union each expected; other faults once each."""
    wrong_types = [fault for fault in faults if fault.expected]
    others = list(dict.fromkeys(fault for fault in faults if not fault.expected))
    if not wrong_types:
        return others
    first, expected = wrong_types[0], " or ".join(dict.fromkeys(fault.expected for fault in wrong_types))
    return [replace(first, message=first.message.replace(first.expected, expected, 1), expected=expected), *others]


def _locate(loc: Keys, kind: str, model: type[BaseModel], raw: object) -> tuple[Keys, list[type[BaseModel]]]:
    """The keys a user wrote for pydantic's ``loc``, and the models that could hold the last of them.

    ``loc`` also names the members of unions, and indices of lists that were given as one value.
    """
    keys: Keys = ()
    here: Any = raw
    holders = [model]
    inside: list[type[BaseModel]] = [model]
    for i, part in enumerate(loc):
        fields = [m.model_fields[str(part)].annotation for m in inside if part in m.model_fields]
        last = i == len(loc) - 1 and kind in ("missing", "extra_forbidden")
        written = (
            part in here if isinstance(here, Mapping) else isinstance(part, int) and isinstance(here, (list, tuple))
        )
        if not (fields or written or last):
            continue
        keys = (*keys, part)
        holders = inside
        if not isinstance(part, int):
            inside = [m for annotation in fields for m in _models(annotation)]
        here = here[part] if written and _has(here, part) else None
    return keys, holders


def _has(here: Any, part: str | int) -> bool:
    return isinstance(here, Mapping) or (isinstance(part, int) and part < len(here))


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types that a union, a list or an annotated type is made of."""
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _leaves(argument)


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [leaf for leaf in _leaves(annotation) if isinstance(leaf, type) and issubclass(leaf, BaseModel)]


def _takes_number(annotation: Any) -> bool:
    """Whether a number is accepted and a bool is not."""
    leaves = list(_leaves(annotation))
    takes_bool = any(leaf is bool or leaf is Any or leaf is object or isinstance(leaf, bool) for leaf in leaves)
    return not takes_bool and any(leaf is int or leaf is float for leaf in leaves)


def _meaning(holders: list[type[BaseModel]], name: str) -> str:
    """`: what it is`, from the field's description."""
    for holder in holders:
        if name in holder.model_fields and holder.model_fields[name].description:
            return f": {holder.model_fields[name].description}"
    return ""
