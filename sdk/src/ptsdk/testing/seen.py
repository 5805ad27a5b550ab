"""What a test sees of the environment: core, and the dists it names."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from importlib import metadata

from ptsdk._installed import normalise
from ptsdk.errors import UserError
from ptsdk.plugins import DiscoveryOptions, Plugins, scan
from ptsdk.registry import Registry


def isolated(dists: frozenset[str]) -> Registry:
    """Core and ``dists`` alone.

    Raises:
        UserError: one of them is not installed, or broken.
    """
    allowed = frozenset(normalise(dist) for dist in dists)
    registry = _registry(allowed, tuple(sys.path))
    for dist in allowed - {"ptsdk"}:
        record = registry.plugins.get(dist)
        if record is None or record.status != "loaded":
            raise UserError(f"{dist} is not usable here: {record.error if record else 'it is not installed'}")
    return registry


def from_environment() -> Registry:
    """What PTSDK_PLUGINS and PTSDK_DISABLE leave."""
    options = DiscoveryOptions.from_environment()
    return _registry(options.allow, tuple(sys.path), options.deny)


def closure(plugins: Plugins, dist: str) -> frozenset[str]:
    """A dist and the plugins that it requires, directly or not, optional ones included."""
    known = {record.dist for record in plugins.records if record.status == "loaded"}
    found, waiting = set[str](), [normalise(dist)]
    while waiting:
        if (name := waiting.pop()) in known and name not in found:
            found.add(name)
            waiting += _required(name)
    return frozenset(found)


def _required(dist: str) -> list[str]:
    try:
        requirements = metadata.requires(dist) or []
    except metadata.PackageNotFoundError:
        return []
    names = (re.match(r"[A-Za-z0-9._-]+", text) for text in requirements)
    return [normalise(name[0]) for name in names if name]


@lru_cache(maxsize=64)
def _registry(allow: frozenset[str] | None, path: tuple[str, ...], deny: frozenset[str] = frozenset()) -> Registry:
    """Discovery is a pure function of the path, and the same for many tests."""
    return Registry(scan(DiscoveryOptions(allow=allow, deny=deny)))
