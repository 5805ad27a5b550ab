"""Suites for what is installed, without a line of the author's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

import ptsdk.testing as kit
from ptsdk.errors import UserError
from ptsdk.plugins import Entry, Record
from ptsdk.registry import Registry, devices, missing_requirements
from ptsdk.specs import Spec
from ptsdk.testing.seen import from_environment
from ptsdk.testing.suite import Suite


def suites_of(dist: str | None = None) -> dict[str, type[Suite]]:
    """A test class for each component of ``dist``, and one for the dist itself, by class name.

    In a test file, ``globals().update(suites_of("ptsdk-lora"))`` runs them all.

    Args:
        dist: None for everything installed.

    Raises:
        UserError: no plugin of that name is installed, or it is disabled.
    """
    registry = from_environment()
    usable = [record for record in registry.plugins.records if record.status != "blocked"]
    found: dict[str, type[Suite]] = {}
    for record in usable if dist is None else [installed(registry, dist)]:
        for suite in _of(record):
            while suite.__name__ in found:  # "a-b" and "a_b" are one in camel case
                suite.__name__ += "_"
            found[suite.__name__] = suite
    return found


def installed(registry: Registry, dist: str) -> Record:
    """The record of a dist.

    Raises:
        UserError: there is none, or it is disabled.
    """
    record = registry.plugins.get(dist)
    if record is None:
        known = ", ".join(r.dist for r in registry.plugins.records)
        raise UserError(f"no plugin {dist!r} is installed", hint=f"pip install {dist}; installed: {known}")
    if record.status == "blocked":
        raise UserError(f"{record.dist} is {record.error}", hint="let it in, then ask again")
    return record


def _of(record: Record) -> Iterator[type[Suite]]:
    yield _subclass(kit.PluginSuite, f"TestPlugin{_camel(record.dist)}", record.dist)
    for entry in record.components:
        yield suite_of(entry)


def suite_of(entry: Entry) -> type[Suite]:
    """The suite of its kind about one component, with the examples of its options."""
    suite = getattr(kit, kit.SUITES[entry.kind][1])
    name = f"Test{_camel(entry.kind)}{_camel(entry.dist.removeprefix('ptsdk'))}{_camel(entry.spec.name)}"
    return _subclass(suite, name, entry.qualified, lacks=_lacks(entry.spec))


def _lacks(spec: Spec) -> str:
    """What a component requires and this machine has not; empty where it has all."""
    if missing := missing_requirements(spec):
        return f"{spec.name} needs {', '.join(missing)}, which is not installed"
    wanted = devices(spec)
    if wanted and not any(is_here(device) for device in wanted):
        return f"{spec.name} needs a {' or '.join(wanted)} device, and there is none here"
    return ""


def is_here(device: str) -> bool:
    """Whether this machine has a device of that type."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return device == "cpu" or (found is not None and found.type == device)


def _subclass(suite: type[Suite], name: str, component: str, **attributes: Any) -> type[Suite]:
    return type(name, (suite,), {"component": component, "__module__": __name__.partition(".")[0], **attributes})


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name) if part)
