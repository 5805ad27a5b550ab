"""What core says of packages that are not installed, beside the packages."""

from __future__ import annotations

import pytest

from ptsdk import hints
from ptsdk.plugins import scan
from ptsdk.registry import Registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(scan())


@pytest.mark.parametrize("dist", hints._BY_DIST)
def test_a_package_has_what_it_is_recommended_for(dist: str, registry: Registry) -> None:
    """One name of each kind at least: others are how people call the same."""
    for kind, names in hints._BY_DIST[dist].items():
        provided = {entry.spec.name for entry in registry.entries(kind) if entry.dist == dist}
        assert provided & set(names), f"{dist} provides {sorted(provided)} of the kind {kind}, and none of {names}"


def test_every_architecture_is_read_by_the_package_that_is_named(registry: Registry) -> None:
    assert {name: registry.by_architecture(name).dist for name in hints._ARCHITECTURES} == hints._ARCHITECTURES
    read = {name for entry in registry.entries("model-family") for name in getattr(entry.spec, "architectures", ())}
    assert {name for name in read if registry.by_architecture(name).dist != "ptsdk"} == set(hints._ARCHITECTURES)
