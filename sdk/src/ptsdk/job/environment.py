"""``${env:NAME}`` in the strings of a job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ptsdk.job.source import Keys

_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_START = "${env:"
_SHORTEST_SECRET = 4


def substitute(values: Any, environ: Mapping[str, str]) -> tuple[Any, dict[str, str], list[tuple[Keys, str, str]]]:
    """Replace every reference by the variable's value.

    ``${env:NAME:-default}`` stands for the default where the variable is not set. The result is a
    string; a field that wants a number reads it as one.

    Returns:
        The values; the values that came from the environment, with the variable's name, to be
        redacted wherever the job is recorded; and faults as (keys, message, hint).
    """
    pass_ = _Substitution(environ)
    return pass_.value(values, ()), pass_.secrets, pass_.faults


class _Substitution:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.secrets: dict[str, str] = {}
        self.faults: list[tuple[Keys, str, str]] = []

    def value(self, value: Any, keys: Keys) -> Any:
        if isinstance(value, dict):
            return {key: self.value(item, (*keys, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, (*keys, i)) for i, item in enumerate(value)]
        return self._text(value, keys) if isinstance(value, str) and _START in value else value

    def _text(self, text: str, keys: Keys) -> str:
        if _START in _REFERENCE.sub("", text):
            self.faults.append((keys, f"{text!r} is not a reference", "write ${env:NAME} or ${env:NAME:-default}"))
            return text
        return _REFERENCE.sub(lambda match: self._variable(match, keys), text)

    def _variable(self, match: re.Match[str], keys: Keys) -> str:
        name, default = match.groups()
        found = self.environ.get(name)
        if found is None and default is None:
            hint = f"export {name}=..., or give a default: ${{env:{name}:-default}}"
            self.faults.append((keys, f"the environment variable {name} is not set", hint))
            return match.group()
        if found is None:
            return str(default)
        if len(found) >= _SHORTEST_SECRET and not _is_number(found):
            # a short or numeric value would be "found" all over the record and hide it
            self.secrets[found] = name
        return found


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+0-9.eE]+", text) is not None
