"""``optimizer.lr=1e-5`` and ``~callbacks`` on the command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ptsdk.errors import Problem, UserError
from ptsdk.job.source import OVERRIDE, Keys, Source, dotted, parse

_PATH = re.compile(r"[^.\s=~]+(\.[^.\s=~]+)*")


class _Refused(Exception):
    """An override that does not fit the job."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def apply_overrides(source: Source, overrides: Sequence[str]) -> tuple[Source, list[Problem]]:
    """``source`` with the overrides applied in order, and what is wrong with those that cannot be.

    ``a.b=value`` replaces whatever stands at ``a.b`` (the value is YAML; sections on the way are
    made; a number is an index into a list, the one after the last adds to it), so ``method=dpo``
    leaves no option of the former method behind. ``~a.b`` removes. Options may be set on a
    component that the job gives by its bare name.
    """
    problems: list[Problem] = []
    source = replace(source, values=copy.deepcopy(source.values))
    for text in overrides:
        try:
            source = _apply(source, text)
        except UserError as error:
            problems.extend(error.problems)
    return source, problems


def _apply(source: Source, text: str) -> Source:
    removing = text.startswith("~")
    path, assigned, value_text = text.removeprefix("~").partition("=")
    if not _PATH.fullmatch(path) or removing == bool(assigned):
        hint = "write key.path=value to set, ~key.path to remove"
        raise UserError(Problem(f"`{text}` is not an override", hint, OVERRIDE))
    keys = tuple(path.split("."))
    try:
        where = _remove(source.values, keys) if removing else _assign(source.values, keys, _value(value_text, path))
    except _Refused as error:
        raise UserError(Problem(error.message, error.hint, OVERRIDE, 1, path)) from error
    # what is removed from a list moves the items after it: their lines are no longer theirs
    stale = where[:-1] if removing and isinstance(where[-1], int) else where
    lines = {key: line for key, line in source.lines.items() if key == stale != where or key[: len(stale)] != stale}
    earlier = {key: given for key, given in source.overrides.items() if key[: len(stale)] != stale}
    return replace(source, lines=lines, overrides=earlier if removing else {**earlier, where: text})


def _value(text: str, path: str) -> Any:
    if not text.strip():
        raise _Refused("no value", f"write {path}=null, {path}='\"\"', or ~{path} to remove it")
    try:
        return parse(text, OVERRIDE)[0]
    except UserError as error:
        inner = [replace(p, path=f"{path}.{p.path}" if p.path else path) for p in error.problems]
        raise UserError(*inner) from error


def _assign(root: dict[str, Any], path: tuple[str, ...], value: Any) -> Keys:
    """Set it, and return where, with list indices as numbers."""
    where: Keys = ()
    here: Any = root
    for part, following in zip(path, (*path[1:], None), strict=True):
        key = _key(here, part, where)
        where = (*where, key)
        if following is None:
            here[key] = value
        else:
            here = _descend(here, key, where)
    return where


def _key(here: Any, part: str, where: Keys) -> str | int:
    """``part`` as a key of ``here``; one past the end makes room in a list."""
    if isinstance(here, dict):
        return part
    if not re.fullmatch(r"\d{1,6}", part):
        first = dotted((*where, 0, part))
        raise _Refused(f"{dotted(where)} is a list of {len(here)}", f"say which: {first}=...")
    index = int(part)
    if index > len(here):
        raise _Refused(f"{dotted(where)} has {len(here)} items, none at {index}", "counting starts at 0")
    if index == len(here):
        here.append(None)
    return index


def _descend(here: Any, key: str | int, where: Keys) -> Any:
    """What stands at ``key``, as something that holds keys."""
    child = here.get(key) if isinstance(here, dict) else here[key]
    if child is None:
        child = here[key] = {}
    elif isinstance(child, str):
        child = here[key] = {"use": child}
    if not isinstance(child, (dict, list)):
        raise _Refused(f"{dotted(where)} is {child!r} and holds no keys", f"replace it: {dotted(where)}=...")
    return child


def _remove(root: dict[str, Any], path: tuple[str, ...]) -> Keys:
    where: Keys = ()
    here: Any = root
    for part in path[:-1]:
        here, where = _existing(here, part, where)
    _, where = _existing(here, path[-1], where)
    del here[where[-1]]
    return where


def _existing(here: Any, part: str, where: Keys) -> tuple[Any, Keys]:
    if isinstance(here, dict) and part in here:
        return here[part], (*where, part)
    if isinstance(here, list) and re.fullmatch(r"\d{1,6}", part) and int(part) < len(here):
        return here[int(part)], (*where, int(part))
    raise _Refused("nothing to remove: the job does not set this", "see what it sets with `ptsdk check`")
