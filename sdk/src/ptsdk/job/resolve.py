"""From what a job says of a component to the component."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import ValidationError

from ptsdk.checkpoint.cache import downloaded
from ptsdk.checkpoint.sources import open_checkpoint
from ptsdk.checkpoint.weights import build_on_meta
from ptsdk.contracts.component import Component
from ptsdk.contracts.loss import PolicyLoss, PreferenceLoss, TokenLoss
from ptsdk.contracts.model import ModelFamily
from ptsdk.errors import PtsdkError, UserError
from ptsdk.job.source import Keys
from ptsdk.job.wording import Fault, Faults, faults_of, misplaced_bools, shown
from ptsdk.plugins import CORE, Entry
from ptsdk.registry import Registry, a
from ptsdk.specs import KINDS, DatasetSpec, LossSpec, MethodSpec, Objective, Spec

_LOCAL = re.compile(r"\.py(:|$)")
_PATHS = {
    "model-family": re.compile(r"[/\\]|^[.~]"),
    "tokenizer": re.compile(r"://|^[./~]|\.[a-z]+$"),
    "dataset": re.compile(r"://|^[./~]|\.[a-z]+$"),
}
"""What looks like a path where a name is expected."""
USE_IMPLIED = ("model-family", "tokenizer")
"""Kinds whose options may stand without ``use``."""

_LOSSES: dict[type[Component], Objective] = {
    TokenLoss: "token",
    PreferenceLoss: "preference",
    PolicyLoss: "policy",
}


@runtime_checkable
class ReadsFiles(Protocol):
    """A component that can say which files it will read; it raises UserError when there are none."""

    def files(self, base: Path) -> Any:
        """The files, without reading them."""


class Resolver:
    """Makes components; kept in the validation context of a job, and asked by every ``Use``."""

    def __init__(self, registry: Registry, base: Path) -> None:
        self.registry, self.base = registry, base
        self.local_files: dict[str, str] = {}
        self._found: dict[tuple[str, str], tuple[Entry, type[Component]]] = {}
        self._families: dict[str, Entry] = {}
        self._configs: dict[str, dict[str, Any]] = {}

    def __call__(self, kind: str, value: object) -> Component:
        """The component that ``value`` describes.

        Raises:
            Faults: all that is wrong with it, placed relative to ``value``.
        """
        if value is None:
            raise Faults(
                Fault((), f"expected {a(kind)}, got null", "remove the line to use the default, if there is one")
            )
        use, options = self._split(kind, value)
        try:
            entry, cls = self.find(kind, use)
        except PtsdkError as error:
            named = ("use",) if isinstance(value, Mapping) and "use" in value else ()
            faults = _from_error(error, named)
            if isinstance(value, str) and _is_path(kind, value):
                spelled = f"{{path: {value}}}" if kind in USE_IMPLIED else f"{{use: ..., path: {value}}}"
                faults = [Fault((), f"expected the name of {a(kind)}, got what looks like a path", f"write {spelled}")]
            raise Faults(*faults) from error
        component = self._build(cls, options)
        object.__setattr__(component, "__ptsdk_use__", use if _LOCAL.search(use) else entry.qualified)
        for option in vars(component).values():
            if isinstance(option, Component):
                self.entry_of(option)  # a default, made in Python: the record is to name it
        return component

    def find(self, kind: str, use: str) -> tuple[Entry, type[Component]]:
        """The component of that name, or of that local file.

        Raises:
            UserError: there is none, there are several, or it cannot be imported.
        """
        if (kind, use) not in self._found:
            self._found[kind, use] = self._local(kind, use) if _LOCAL.search(use) else self._installed(kind, use)
        return self._found[kind, use]

    def entry(self, kind: str, value: object) -> Entry:
        """The component that ``value`` names, whether or not its options are sound.

        Raises:
            Faults, PtsdkError: it names none.
        """
        if isinstance(value, Component):
            return self.entry_of(value)
        use = self._split(kind, value)[0]
        return self.find(kind, use)[0] if _LOCAL.search(use) else self.registry.find(kind, use)

    def entry_of(self, component: Component) -> Entry:
        """Where an instance came from, also one that was made in Python."""
        use = getattr(component, "__ptsdk_use__", None)
        if use is not None:
            return self.find(component.kind, use)[0]
        entry = self._by_class(component.kind, type(component))
        if entry is None:
            return _unregistered(component.kind, type(component), self._inherited(component.kind, type(component)))
        object.__setattr__(component, "__ptsdk_use__", entry.qualified)  # so that the record names it
        return entry

    def _split(self, kind: str, value: object) -> tuple[str, dict[str, Any]]:
        """The name and the options; a model's family is found from its checkpoint."""
        if isinstance(value, str):
            return value, {}
        if not isinstance(value, Mapping):
            raise Faults(Fault((), f"expected the name of {a(kind)}, or a mapping with `use`, got {shown(value)}"))
        options = {key: item for key, item in value.items() if key != "use"}
        if "use" not in value:
            return self._implied(kind, options), options
        if not isinstance(value["use"], str):
            raise Faults(Fault(("use",), f"expected the name of {a(kind)}, got {shown(value['use'])}"))
        return value["use"], options

    def _implied(self, kind: str, options: Mapping[str, Any]) -> str:
        path = options.get("path")
        if kind == "tokenizer":
            return f"{CORE}/auto"
        if kind == "model-family" and isinstance(path, str):
            try:
                return self._family(path).qualified
            except PtsdkError as error:
                raise Faults(*_from_error(error, ("path",))) from error
        if kind == "model-family":
            raise Faults(
                Fault((), "neither `path` nor `use` is given", "write {path: ...}, or {use: ..., config: {...}}")
            )
        names = ", ".join(sorted(self.registry.names(kind)))
        raise Faults(Fault(("use",), f"missing: which {kind}", f"add `use: ...`; installed: {names or 'none'}"))

    def config_of(self, family: ModelFamily) -> dict[str, Any]:
        """What config.json says of a model, or would say of one from scratch.

        Raises:
            UserError: its checkpoint cannot be opened, or the family has no such model.
        """
        return family.full_config(family.config or {}) if family.path is None else self._config(family.path)

    def _config(self, path: str) -> dict[str, Any]:
        """config.json of a checkpoint, which is opened once."""
        if path not in self._configs:
            self._configs[path] = open_checkpoint(path, self.base, self.registry, weights=False).config
        return self._configs[path]

    def _family(self, path: str) -> Entry:
        if path not in self._families:
            config = self._config(path)
            architectures = config.get("architectures") or [config.get("model_type")]
            if not isinstance(architectures, list) or not isinstance(architectures[0], str):
                raise UserError(f"{path}: config.json names no architecture", hint="say which family: add `use: ...`")
            self._families[path] = self.registry.by_architecture(architectures[0])
        return self._families[path]

    def _installed(self, kind: str, use: str) -> tuple[Entry, type[Component]]:
        entry = self.registry.find(kind, use)
        return entry, self.registry.load(entry)

    def _local(self, kind: str, use: str) -> tuple[Entry, type[Component]]:
        if place := downloaded(self.base / use.rpartition(":")[0]):
            hint = "read it, and copy it beside the job if you trust it"
            raise UserError(f"{use} lies in {place}, among what was downloaded: its code is not run", hint=hint)
        cls, sha256 = self.registry.load_local(use, kind, self.base)
        self.local_files[use] = sha256
        return _unregistered(kind, cls, self._inherited(kind, cls)), cls

    def _by_class(self, kind: str, cls: type[Component]) -> Entry | None:
        target = f"{cls.__module__}:{cls.__qualname__}"
        return next((e for e in self.registry.entries(kind) if e.spec.target == target), None)

    def _inherited(self, kind: str, cls: type[Component]) -> Spec | None:
        """The spec of the installed component that a class of the user's derives from."""
        bases = (self._by_class(kind, base) for base in cls.__mro__ if issubclass(base, Component))
        entry = next((entry for entry in bases if entry), None)
        if entry and isinstance(entry.spec, MethodSpec):
            return replace(entry.spec, default_loss=default_loss(entry, self.registry))
        return entry.spec if entry else None

    def _build(self, cls: type[Component], options: dict[str, Any]) -> Component:
        faults = list(misplaced_bools(cls, options))
        component = None
        try:
            component = cls.model_validate(options, context={"resolve": self})
        except ValidationError as error:
            found = faults_of(error, cls, options)
            faults = [*found, *(f for f in faults if f.keys not in {other.keys for other in found})]
        faults += self._outside(component or self._sound_part(cls, options, faults))
        if faults or component is None:
            raise Faults(*faults)
        return component

    def _sound_part(self, cls: type[Component], options: dict[str, Any], faults: list[Fault]) -> Component | None:
        """The component of the options that are right, to look at the files they name."""
        wrong = {fault.keys[0] for fault in faults if fault.keys}
        try:
            sound = {key: value for key, value in options.items() if key not in wrong}
            return cls.model_validate(sound, context={"resolve": self})
        except ValidationError:
            return None

    def _outside(self, component: Component | None) -> Iterator[Fault]:
        """What is wrong with the things that sound options point to."""
        try:
            if isinstance(component, ReadsFiles):
                component.files(self.base)
            if isinstance(component, ModelFamily):
                yield from self._model(component)
        except PtsdkError as error:
            yield from _from_error(error, ("path",))
        except (OSError, ValueError) as error:  # a name that is too long, or that no file can have
            yield Fault(("path",), f"cannot be looked up: {error}", "is it a path?")

    def _model(self, family: ModelFamily) -> Iterator[Fault]:
        if (family.path is None) == (family.config is None):
            given = "both are" if family.path is not None else "neither is"
            hint = "`path` is a checkpoint, `config` the keys of config.json for a model from scratch"
            yield Fault((), f"exactly one of `path` and `config` must be given; {given}", hint)
        elif family.path is not None:
            yield from _unbuildable(family, self.config_of(family))
        elif family.config is not None:
            try:
                yield from _unbuildable(family, self.config_of(family))
            except UserError as error:
                yield from _from_error(error, ("config",))


def default_loss(method: Entry, registry: Registry) -> str:
    """The loss that a method's spec names, in full where its own dist or else core has one of that name, so
    that no other package has a say in it."""
    assert isinstance(method.spec, MethodSpec)
    name = method.spec.default_loss
    providers = {entry.dist: entry.qualified for entry in registry.entries("loss") if entry.spec.name == name}
    return providers.get(method.dist) or providers.get(CORE) or name


def _unbuildable(family: ModelFamily, config: dict[str, Any]) -> Iterator[Fault]:
    """Why the family makes no model of a config; made on the meta device, it costs no memory."""
    keys = ("config",) if family.path is None else ("path",)
    try:
        build_on_meta(family, config, torch.float32)
    except UserError as error:  # placed in a config.json, which is not the job's
        yield from (Fault(keys, f"{family.path}: {problem.message}", problem.hint) for problem in error.problems)
    except (RuntimeError, TypeError) as error:  # what torch says of sizes beyond 64 bits
        message = f"no model can be made of this config: {str(error).splitlines()[0]}"
        yield Fault(keys, message, "look for a size that is too large")


def _is_path(kind: str, name: str) -> bool:
    return kind in _PATHS and not _LOCAL.search(name) and _PATHS[kind].search(name) is not None


def _from_error(error: PtsdkError, keys: Keys) -> list[Fault]:
    """The problems of an error as faults, at ``keys`` unless they name a key of the component
    themselves (``model.config.x``, ``tokenizer.path``)."""
    if not isinstance(error, UserError):
        return [Fault(keys, str(error))]
    return [
        Fault(
            tuple(problem.path.split(".")[1:]) or keys,
            f"{problem.file}:{problem.line}: {problem.message}" if problem.file else problem.message,
            problem.hint,
        )
        for problem in error.problems
    ]


def _unregistered(kind: str, cls: type[Component], inherited: Spec | None) -> Entry:
    """An entry for a class that no dist declares: what it can do follows from what it derives from."""
    name = re.sub(r"[^a-z0-9_.-]", "_", f"local-{cls.__name__.lower()}")
    target = f"local:{re.sub(r'[^A-Za-z0-9_]', '_', cls.__name__)}"
    if inherited is not None:
        return Entry(kind, replace(inherited, name=name, target=target), "", "")
    declared: Objective = getattr(cls, "objective", "token")
    objective = next((o for base, o in _LOSSES.items() if issubclass(cls, base)), declared)
    spec_class = KINDS[kind].spec
    if issubclass(spec_class, (DatasetSpec, LossSpec, MethodSpec)):
        return Entry(kind, spec_class(name, target, objective=objective), "", "")
    return Entry(kind, spec_class(name, target), "", "")
