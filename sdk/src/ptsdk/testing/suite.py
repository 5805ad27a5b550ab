"""What every suite has: it finds its component, guards its own tests, and asks what holds for all kinds."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ptsdk.contracts.component import Component, record
from ptsdk.job.resolve import Resolver
from ptsdk.job.source import dotted
from ptsdk.job.wording import Faults
from ptsdk.plugins import Entry
from ptsdk.registry import Registry
from ptsdk.testing.plugin import GUARD
from ptsdk.testing.seen import closure, from_environment, isolated

OURS = "ptsdk.testing."


class Suite:
    """Base of all suites; a subclass in a test file names a ``component``, and pytest runs it.

    Attributes:
        component: its name, ``dist/name``, or ``./file.py:Class`` beside the test file.
        options: what a job would write beside ``use``. Where an option has ``Field(examples=[...])``
            and is not given here, its first example is taken: that is also how ``ptsdk conform`` finds
            values for options without a default.
        needs: other dists that have to be seen beside the component's own and what that requires.
        deviations: standard tests that this component may fail or that the subclass replaces, each with
            the reason. A test that is named and not replaced is skipped.
    """

    kind: ClassVar[str] = ""
    component: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    needs: ClassVar[tuple[str, ...]] = ()
    deviations: ClassVar[Mapping[str, str]] = {}
    lacks: ClassVar[str] = ""
    """What of the component's requirements is not installed; its tests are then skipped."""

    registry: Registry
    folder: Path
    """A folder of this test's own; also the working directory."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if getattr(cls, GUARD) is not vars(Suite)[GUARD]:  # of a base before this one, too
            raise TypeError(f"{cls.__name__} must not replace {GUARD}: name what deviates in `deviations`")

    @pytest.fixture(autouse=True)
    def _stage(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Discovery narrowed to the component's dist, an own working directory, and deviations."""
        if self.lacks:
            pytest.skip(self.lacks)
        name = request.function.__name__
        reason = self.deviations.get(name)
        if reason and getattr(type(self), name, None) is standard_tests(type(self)).get(name):
            pytest.skip(reason)
        self.folder = tmp_path
        monkeypatch.chdir(tmp_path)
        self.registry = self.seen()
        for variable, value in self.registry.plugins.options.environment().items():
            monkeypatch.setenv(variable, value)
        yield

    def seen(self) -> Registry:
        """Core, the dist of the component, what that requires, and ``needs``."""
        everything = from_environment()
        own = frozenset[str]() if self.is_local else closure(everything.plugins, self.entry_in(everything).dist)
        return isolated(own | frozenset(self.needs))

    @property
    def is_local(self) -> bool:
        """Whether the component is a class in a file rather than one of a dist."""
        return ".py:" in self.component

    def entry_in(self, registry: Registry) -> Entry:
        """The component's record."""
        assert self.component, f"{type(self).__name__} does not say which {self.kind} it is about: set `component`"
        return registry.find(self.kind, self.component)

    @property
    def base(self) -> Path:
        """The folder that ``./file.py`` is relative to: that of the test file."""
        return Path(inspect.getfile(type(self))).parent if self.is_local else self.folder

    @property
    def resolver(self) -> Resolver:
        """Makes components as a job would."""
        return Resolver(self.registry, self.base)

    @property
    def cls(self) -> type[Any]:
        """The class of the component."""
        return self.resolver.find(self.kind, self.component)[1]

    @property
    def spec(self) -> Any:
        """The component's spec."""
        return self.resolver.find(self.kind, self.component)[0].spec

    def written(self, **options: Any) -> dict[str, Any]:
        """What a job would say: ``use``, the examples of options, ``self.options``, and ``options``."""
        return {"use": self.component, **examples(self.cls), **self.options, **options}

    def make(self, **options: Any) -> Any:
        """The component, with ``options`` over those of the class.

        Raises:
            ValueError: ``options`` are not its options.
            AssertionError: without any it cannot be made.
        """
        try:
            return self.resolver(self.kind, self.written(**options))
        except Faults as error:
            if options:
                raise
            told = "; ".join(f"{dotted(fault.keys)}: {fault.message}" for fault in error.faults)
            raise AssertionError(
                f"{self.component} cannot be made of {self.written()}: {told}. Say in the suite's `options` what it "
                f"needs, or give those options an example: Field(examples=[...])"
            ) from error

    def test_standard_tests_are_whole(self) -> None:
        """No standard test is replaced, removed or skipped without a reason in ``deviations``."""
        standard = standard_tests(type(self))
        changed = {name for name, test in standard.items() if getattr(type(self), name, None) is not test}
        silent = sorted(changed - set(self.deviations))
        assert not silent, f"changed without a reason in `deviations`: {', '.join(silent)}"
        unknown = sorted(set(self.deviations) - set(standard))
        assert not unknown, (
            f"`deviations` names no standard test: {', '.join(unknown)}; there are {', '.join(standard)}"
        )
        bare = sorted(name for name, reason in self.deviations.items() if not reason.strip())
        assert not bare, f"`deviations` gives no reason for {', '.join(bare)}"


class ComponentSuite(Suite):
    """What holds for every component that is a set of options, whatever its kind."""

    def test_options_are_described(self) -> None:
        """Each option has a ``Field(description=...)``: `ptsdk show` and docs are made of them."""
        bare = [name for name, field in self.cls.model_fields.items() if not (field.description or "").strip()]
        assert not bare, f"{self.cls.__name__}: no description of {', '.join(bare)}"

    def test_unknown_options_are_refused(self) -> None:
        """An option that does not exist is a mistake of the user's, not to be passed over."""
        with pytest.raises(ValueError):
            self.make(**{"no_such_option_": 1})

    def test_options_survive_the_record(self) -> None:
        """What the run's lock records of the component makes the same component."""
        component = self.make()
        again = self.resolver(self.kind, record(component))
        assert record(again) == record(component), "the record of its record is another one"
        assert again == component, "the component made of its record is another one"

    def test_options_cannot_be_changed(self) -> None:
        """A component is frozen and holds no live state: what changes during a run is kept by the run."""
        component: Component = self.make()
        assert component.model_config.get("frozen"), f"{self.cls.__name__} is not frozen"
        assert not self.cls.__private_attributes__, f"{self.cls.__name__} has private attributes, which are live state"


def standard_tests(suite: type[Suite]) -> dict[str, Any]:
    """The tests that the kit itself gives a suite, by name."""
    ours = [base for base in suite.__mro__ if base.__module__.startswith(OURS)]
    return {
        name: test
        for base in reversed(ours)
        for name, test in vars(base).items()
        if name.startswith("test_") and callable(test)
    }


def examples(cls: type[Any]) -> dict[str, Any]:
    """The first example of each option that has one."""
    fields = getattr(cls, "model_fields", {})
    return {name: field.examples[0] for name, field in fields.items() if field.examples}
