"""Which installed dists say they are plugins, read from their metadata alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

GROUP = "ptsdk"
"""The entry point group of a plugin: one entry point a dist, whose value is a module."""


@dataclass(frozen=True)
class Source:
    """A dist that may contribute: its name (normalised), version, plugin modules and place.

    ``fault`` says what is wrong with the metadata itself; such a dist is never imported.
    """

    dist: str
    version: str
    modules: tuple[str, ...]
    location: str = ""
    fault: str = ""


def normalise(name: str) -> str:
    """A dist's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def installed() -> tuple[list[Source], list[str]]:
    """The plugins on ``sys.path`` by name, and what is odd about them.

    A dist that is found twice (a folder listed twice, lib64 beside lib) counts once. Where the two
    differ, the first on the path is taken, as ``import`` does, and the other is reported.
    """
    found: dict[str, Source] = {}
    notices: list[str] = []
    for source in _sources():
        first = found.setdefault(source.dist, source)
        if (first.version, first.modules) != (source.version, source.modules):
            notices.append(
                f"{source.dist} is installed twice: {first.version} in {first.location} is used, "
                f"{source.version} in {source.location} is not"
            )
    return sorted(found.values(), key=lambda source: source.dist), notices


def _sources() -> Iterator[Source]:
    resolved = cache(lambda folder: str(Path(folder).resolve()))  # many lie in one folder
    for dist in metadata.distributions():
        text, fault = _entry_points(dist)
        if fault or f"[{GROUP}]" in text.replace(" ", ""):
            yield _source(dist, resolved(str(dist.locate_file(""))), fault)


def _entry_points(dist: metadata.Distribution) -> tuple[str, str]:
    """``entry_points.txt`` and why it cannot be read."""
    try:
        return dist.read_text("entry_points.txt") or "", ""
    except UnicodeDecodeError as error:
        return "", f"entry_points.txt is not UTF-8: {error.reason}"


def header(dist: metadata.Distribution) -> dict[str, list[str]]:
    """The fields of ``dist.metadata`` by their names in lower case, without the long description: a tenth of the time
    that the email package takes, and a start asks every dist that is installed."""
    text = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or dist.read_text("") or ""
    fields: dict[str, list[str]] = {"name": [], "version": [], "requires-dist": []}
    values: list[str] = []
    for line in text.replace("\r\n", "\n").partition("\n\n")[0].split("\n"):
        if line[:1] in (" ", "\t") and values:  # the field goes on
            values[-1] += line
        else:
            name, _, value = line.partition(":")
            values = fields.setdefault(name.lower(), [])
            values.append(value.strip())
    return fields


def _source(dist: metadata.Distribution, location: str, fault: str) -> Source:
    fields = header(dist)
    name, version = ((fields[key] or [""])[0] for key in ("name", "version"))
    if not name:
        return Source(location, version, (), location, "its METADATA has no Name")
    dist_name = normalise(name)
    if fault:
        return Source(dist_name, version, (), location, fault)
    try:
        points = sorted((point.name, point.value) for point in dist.entry_points if point.group == GROUP)
    except (TypeError, ValueError):
        return Source(dist_name, version, (), location, "entry_points.txt has a line that is not `name = module`")
    return Source(dist_name, version, tuple(value.strip() for _, value in points), location)
