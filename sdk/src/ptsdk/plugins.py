"""Discovery: what is installed, which of it is sound, and what each dist contributes.

``scan()`` is a pure function of the environment, so every process of a run finds the same. A broken
plugin becomes a record and never stops the others.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import ptsdk
from ptsdk._guard import Fault
from ptsdk._installed import Source, installed, normalise
from ptsdk._loading import (
    Entry,
    Hooks,
    check_api,
    check_names,
    check_targets,
    contributions,
    declared_api,
    import_plugin,
)
from ptsdk.errors import Problem, PtsdkError, UserError
from ptsdk.specs import API

__all__ = ["DiscoveryOptions", "Entry", "Plugins", "Record", "discover", "scan"]

CORE = "ptsdk"

Status = Literal["loaded", "broken", "blocked"]


@dataclass(frozen=True)
class DiscoveryOptions:
    """Which plugins may be imported at all; dist names are normalised.

    Args:
        allow: only these, None for all (``PTSDK_PLUGINS``; set but empty: none).
        deny: not these (``PTSDK_DISABLE`` and ``--no-plugin``).
        safe: none but core (``--safe``).
        strict: a broken plugin is an error (``PTSDK_STRICT=1``).
    """

    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    safe: bool = False
    strict: bool = False

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, *, no_plugin: Iterable[str] = (), safe: bool = False
    ) -> DiscoveryOptions:
        """The options of the environment and the command line together."""
        allow = environ.get("PTSDK_PLUGINS")
        return cls(
            allow=None if allow is None else _names(allow),
            deny=_names(environ.get("PTSDK_DISABLE", "")) | {normalise(name) for name in no_plugin},
            safe=safe,
            strict=environ.get("PTSDK_STRICT", "") not in ("", "0"),
        )

    def environment(self) -> dict[str, str]:
        """The variables that make a child process find the same."""
        allow = frozenset[str]() if self.safe else self.allow
        variables = {"PTSDK_DISABLE": ",".join(sorted(self.deny)), "PTSDK_STRICT": "1" if self.strict else "0"}
        return variables if allow is None else {**variables, "PTSDK_PLUGINS": ",".join(sorted(allow))}

    def blocks(self, dist: str) -> str:
        """Why ``dist`` may not be imported, empty when it may."""
        if self.safe:
            return "disabled: --safe loads core alone"
        if dist in self.deny:
            return "disabled by PTSDK_DISABLE or --no-plugin"
        if self.allow is not None and dist not in self.allow:
            return "disabled: PTSDK_PLUGINS does not name it"
        return ""

    def notices(self, dists: Collection[str]) -> list[str]:
        """What the options name that is not among the installed ``dists``."""
        notices = []
        for name in sorted(self.deny | (self.allow or frozenset())):
            if name == CORE and name in self.deny:
                notices.append("ptsdk itself cannot be disabled")
            elif name != CORE and name not in dists:
                close = get_close_matches(name, dists, n=1) or [d for d in dists if d == f"ptsdk-{name}"]
                notices.append(
                    f"no plugin {name!r} is installed, yet PTSDK_PLUGINS, PTSDK_DISABLE or --no-plugin names it"
                    + (f"; did you mean {close[0]}?" if close else "")
                )
        return notices


@dataclass(frozen=True)
class Record:
    """One dist and what became of it. A dist is taken whole or not at all: only a loaded one has
    components. ``error`` says why it is broken or blocked."""

    dist: str
    version: str
    api: int | None
    status: Status
    error: str | None = None
    components: tuple[Entry, ...] = ()

    @property
    def advice(self) -> str:
        """What to do about a loaded plugin that the next API leaves out; empty for one of this API."""
        if self.status != "loaded" or self.api == API:
            return ""
        return (
            f"written for API {self.api}, accepted until API {API + 1}: pip install -U {self.dist}, or ask its author"
        )

    def as_json(self) -> dict[str, Any]:
        """The object of ``ptsdk plugins --json``."""
        return {
            "dist": self.dist,
            "version": self.version,
            "api": self.api,
            "status": self.status,
            "error": self.error,
            "components": [
                {"kind": e.kind, "name": e.spec.name, "target": e.spec.target, "summary": e.spec.summary}
                for e in self.components
            ],
        }


@dataclass(frozen=True)
class Plugins:
    """Every installed plugin, core first, then by name; ``notices`` are oddities that stop nothing."""

    records: tuple[Record, ...]
    options: DiscoveryOptions = DiscoveryOptions()
    notices: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Record, ...]:
        """The records that could not be loaded."""
        return tuple(record for record in self.records if record.status == "broken")

    def get(self, dist: str) -> Record | None:
        """The record of a dist, under any spelling of its name."""
        return next((record for record in self.records if record.dist == normalise(dist)), None)

    def warnings(self) -> list[str]:
        """One line for each broken plugin, with its name and the fix, and the notices."""
        return [
            f"plugin {r.dist} {r.version} is broken and left out: {r.error} (`pip uninstall {r.dist}`, or see "
            "`ptsdk doctor`)"
            for r in self.broken
        ] + list(self.notices)

    def as_json(self) -> list[dict[str, Any]]:
        """What ``ptsdk plugins --json`` prints."""
        return [record.as_json() for record in self.records]


def scan(options: DiscoveryOptions | None = None) -> Plugins:
    """Find, import and ask every plugin that the options allow.

    Raises:
        UserError: with ``strict``, when a plugin is broken.
        PtsdkError: core itself is damaged.
    """
    options = options or DiscoveryOptions.from_environment()
    sources, notices = installed()
    owners: dict[str, str] = {}
    hooks = Hooks()
    core = _load(Source(CORE, ptsdk.__version__, ("ptsdk.builtin.plugin",)), owners, hooks)
    if core.error:
        raise PtsdkError(f"ptsdk itself is damaged: {core.error}; pip install --force-reinstall --no-deps ptsdk")
    records = [core]
    for source in sources:
        reason = options.blocks(source.dist)
        blocked = Record(source.dist, source.version, None, "blocked", reason)
        records.append(blocked if reason else _load(source, owners, hooks))
    notices += options.notices([source.dist for source in sources])
    plugins = Plugins(tuple(records), options, tuple(notices))
    if options.strict and plugins.broken:
        raise UserError(*(_strict(record) for record in plugins.broken))
    return plugins


def discover() -> list[dict[str, Any]]:
    """Every installed plugin as plain data: what ``ptsdk plugins --json`` prints."""
    return scan().as_json()


def _load(source: Source, owners: dict[str, str], hooks: Hooks) -> Record:
    """Import one plugin and ask its hooks; ``owners`` knows which dist has which module."""
    api: int | None = None
    entries: list[Entry] = []
    try:
        if source.fault:
            raise Fault(source.fault)
        for name in source.modules:
            if owners.setdefault(name, source.dist) != source.dist:
                raise Fault(f"its module {name} is also the plugin of {owners[name]}; uninstall one of the two")
            module = import_plugin(name)
            api = declared_api(module)
            check_api(api, source.dist)
            entries += contributions(hooks, module, source.dist, source.version)
        check_names(entries)
        if source.dist != CORE:  # core's modules ship with it, and without core there is nobody to report
            check_targets(entries)
    except Fault as fault:
        return Record(source.dist, source.version, api, "broken", str(fault))
    return Record(source.dist, source.version, api, "loaded", None, tuple(entries))


def _strict(record: Record) -> Problem:
    hint = f"pip uninstall {record.dist}, or unset PTSDK_STRICT to go on without it"
    return Problem(f"plugin {record.dist} {record.version} is broken: {record.error}", hint)


def _names(text: str) -> frozenset[str]:
    return frozenset(normalise(name) for name in text.split(",") if name.strip())
