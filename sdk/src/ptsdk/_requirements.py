"""PEP 508 requirements against what is installed, and what to type where one is not met."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from ptsdk._installed import normalise
from ptsdk.errors import Problem, UserError

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def unmet(requirements: Iterable[str]) -> tuple[str, ...]:
    """Those of some PEP 508 ``requirements`` that are not installed in a fitting version, with what
    their extras ask for.

    Raises:
        UserError: a requirement that cannot be read.
    """
    return tuple(requirement for requirement in requirements if not _is_met(parsed(requirement)))


def parsed(text: str) -> Requirement:
    """One requirement.

    Raises:
        UserError: it cannot be read.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise UserError(Problem(f"the requirement {text!r} cannot be read", "write it as PEP 508 says")) from error


def install(requirement: str, dist: str) -> str:
    """The command that installs a ``requirement`` of ``dist``: by the extra in which that declares it,
    so that the author's own bounds hold, else by itself."""
    extra = next(_extras_with(normalise(parsed(requirement).name), dist), None)
    return f"pip install '{dist}[{extra}]'" if extra else f"pip install '{requirement}'"


def _is_met(requirement: Requirement) -> bool:
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return True
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    within = requirement.specifier.contains(version, prereleases=True)
    return within and all(_is_met(one) for extra in requirement.extras for one in _of_extra(requirement.name, extra))


def _extras_with(name: str, dist: str) -> Iterator[str]:
    """The extras of ``dist`` that bring the package ``name``."""
    try:
        extras = metadata.metadata(dist).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for extra in extras:
        if any(normalise(one.name) == name for one in _of_extra(dist, extra)):
            yield extra


def _of_extra(dist: str, extra: str) -> Iterator[Requirement]:
    """What an extra adds to the requirements of an installed dist, markers of the extra taken off."""
    for requirement in map(parsed, metadata.requires(dist) or ()):
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            requirement.marker = None
            yield requirement
