"""What a dist has to be as a whole."""

from __future__ import annotations

from importlib import metadata
from typing import ClassVar

from packaging.requirements import Requirement

from ptsdk._installed import normalise
from ptsdk.plugins import CORE, Record
from ptsdk.registry import Registry
from ptsdk.testing.seen import from_environment
from ptsdk.testing.suite import Suite

UPPER = {"<", "<=", "==", "===", "~="}


class PluginSuite(Suite):
    """``component`` is the name of the dist."""

    kind: ClassVar[str] = "plugin"

    def seen(self) -> Registry:
        """Everything: the dist may be broken."""
        return from_environment()

    @property
    def plugin(self) -> Record:
        """What discovery made of it."""
        found = self.registry.plugins.get(self.component)
        assert found is not None, f"no plugin {self.component} is installed"
        return found

    def test_is_sound(self) -> None:
        """It imports without torch, declares its API number, and its hooks return specs."""
        assert self.plugin.status == "loaded", self.plugin.error

    def test_contributes_something(self) -> None:
        """A plugin without a component is a mistake in its entry point."""
        assert self.plugin.components or self.plugin.status == "broken", "its plugin.py contributes no component"

    def test_components_are_complete_classes(self) -> None:
        """Every target imports and fulfils its kind's contract."""
        for entry in self.plugin.components:
            load = self.registry.load_command if entry.kind == "command" else self.registry.load
            load(entry)

    def test_caps_no_version_of_ptsdk(self) -> None:
        """It requires ptsdk from a version on, never up to one: skew is what the API number is for."""
        requirements = [Requirement(text) for text in metadata.requires(self.component) or ()]
        ours = [one for one in requirements if normalise(one.name) == CORE]
        capped = [str(one) for one in ours if UPPER & {bound.operator for bound in one.specifier}]
        assert not capped, f"requires {capped[0]}: write ptsdk>=X without an upper bound"
