"""One plugin: import its module, check it, ask its hooks."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from ptsdk._guard import Fault, guarded
from ptsdk._requirements import parsed
from ptsdk.errors import UserError
from ptsdk.hookspecs import Contributions
from ptsdk.specs import API, KINDS, Kind, Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pluggy._hooks import HookimplOpts

DEVICE = "device:"
MODULE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")


@dataclass(frozen=True)
class Entry:
    """One component as its dist declared it; nothing of it is imported."""

    kind: str
    spec: Spec
    dist: str
    version: str

    @property
    def qualified(self) -> str:
        """The name that no other dist can claim: ``dist/name``."""
        return f"{self.dist}/{self.spec.name}"

    def fulfils(self, demand: str) -> bool:
        """Whether it is ``kind:name`` or ``kind:dist/name``, or has ``kind:+capability``."""
        kind, _, name = demand.partition(":")
        if self.kind != kind:
            return False
        return name[1:] in self.spec.supports if name.startswith("+") else name in (self.spec.name, self.qualified)


def is_component(demand: str) -> bool:
    """Whether what a spec requires is a component (``adapter:lora``), not a package (``numpy>=2``)."""
    return demand.partition(":")[0] in KINDS


def is_device(demand: str) -> bool:
    """Whether what a spec requires is a type of device (``device:cuda``)."""
    return demand.startswith(DEVICE)


def import_plugin(name: str) -> ModuleType:
    """Import a plugin's module.

    Raises:
        Fault: it is no module's name, or importing it failed.
    """
    if not MODULE.match(name):
        raise Fault(f"its entry point is {name!r}, which must be a module such as 'ptsdk_foo.plugin'")
    with guarded(f"{name} cannot be imported"):
        module = import_module(name)
    return module


def declared_api(module: ModuleType) -> int:
    """``PTSDK_API`` of a plugin's module.

    Raises:
        Fault: it declares none.
    """
    api = vars(module).get("PTSDK_API")
    if not isinstance(api, int) or isinstance(api, bool):
        stated = "does not say which API it was written for" if api is None else f"has PTSDK_API = {api!r}"
        raise Fault(f"{module.__name__} {stated}: write `PTSDK_API = {API}` in it")
    return api


def check_api(api: int, dist: str) -> None:
    """Accept the current API and the one before.

    Raises:
        Fault: any other, with which side to upgrade.
    """
    if api > API:
        raise Fault(f"it was written for plugin API {api}, this ptsdk has {API}: pip install -U ptsdk")
    if api < API - 1:
        raise Fault(f"it was written for plugin API {api}, this ptsdk has {API}: pip install -U {dist}")


def contributions(hooks: Hooks, module: ModuleType, dist: str, version: str) -> list[Entry]:
    """What the hooks of ``module`` return. Each plugin is alone in the manager while it is asked, so that
    none can wrap, reorder or half-register another.

    Raises:
        Fault: an unknown hook, a wrong argument, an error of the hook, or junk returned by it.
    """
    _refuse_unknown(hooks, module)
    try:
        hooks.register(module, name=dist)
    except pluggy.PluginValidationError as error:
        raise Fault(" ".join(str(error).split()) + "; contribution hooks take no arguments") from error
    try:
        return _asked(hooks, module, dist, version)
    finally:
        hooks.unregister(module)


def _asked(hooks: Hooks, module: ModuleType, dist: str, version: str) -> list[Entry]:
    entries = []
    for kind in KINDS.values():
        caller = getattr(hooks.hook, kind.hook)
        if caller.get_hookimpls():
            with guarded(f"{kind.hook}() of {module.__name__} failed"):
                entries += [Entry(kind.name, spec, dist, version) for spec in _specs(caller(), kind)]
    return entries


def check_names(entries: Sequence[Entry]) -> None:
    """Two components of a kind under one name in a dist are a fault.

    Raises:
        Fault: naming the hook.
    """
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        if (entry.kind, entry.spec.name) in seen:
            raise Fault(f"{KINDS[entry.kind].hook}() gives two of the name {entry.spec.name!r}")
        seen.add((entry.kind, entry.spec.name))


def check_targets(entries: Sequence[Entry]) -> None:
    """A target whose module is not there is a fault. The module is looked for, not imported, so
    whether it has the class is known on use.

    Raises:
        Fault: naming the hook and the target.
    """
    there: dict[str, bool] = {}
    for entry in entries:
        module = entry.spec.target.partition(":")[0]
        if module not in there:
            there[module] = module_exists(module)
        if not there[module]:
            raise Fault(
                f"{KINDS[entry.kind].hook}(): the target {entry.spec.target!r} of {entry.spec.name!r} does not exist"
            )


def module_exists(name: str) -> bool:
    """Whether ``a.b.c`` can be found, without executing any of the three."""
    if name in sys.modules:
        return True
    path: Sequence[str] | None = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        full = ".".join(parts[:end])
        if full in sys.modules:
            path = getattr(sys.modules[full], "__path__", None)
        else:
            spec = next((s for f in sys.meta_path if (s := f.find_spec(full, path, None)) is not None), None)
            if spec is None:
                return False
            path = spec.submodule_search_locations
        if path is None and end < len(parts):
            return False
    return True


class Hooks(pluggy.PluginManager):
    """The contribution hooks, of one scan.

    Takes a module's function for a hook by its name alone; ``@hookimpl`` is optional, as in pytest.
    """

    def __init__(self) -> None:
        super().__init__("ptsdk")
        self.add_hookspecs(Contributions)

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> HookimplOpts | None:
        if isinstance(plugin, ModuleType) and (name.startswith("__") or not callable(vars(plugin).get(name))):
            return None  # most names, in a tenth of the time that pluggy takes to see it
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None and name.startswith("ptsdk_") and inspect.isroutine(getattr(plugin, name)):
            return pluggy.HookimplMarker("ptsdk")(lambda: None).ptsdk_impl  # type: ignore[attr-defined,no-any-return]
        return options


def _refuse_unknown(manager: Hooks, module: ModuleType) -> None:
    known = [kind.hook for kind in KINDS.values()]
    for name in dir(module):
        options = manager.parse_hookimpl_opts(module, name)
        if options is None or options["optionalhook"]:
            continue
        hook = options["specname"] or name
        if hook not in known:
            close = get_close_matches(hook, known, n=1)
            raise Fault(
                f"{module.__name__}.{name} is no hook of ptsdk"
                + (f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}")
            )


def _specs(results: list[object], kind: Kind) -> list[Spec]:
    """The one result of a hook as specs of its kind; whatever else it is, is a fault."""
    wanted = f"it must return a list of {kind.spec.__name__}"
    returned = results[0] if len(results) == 1 else None
    if returned is None or isinstance(returned, str | bytes | Spec):
        raise Fault(f"{kind.hook}() returned {returned!r}; {wanted}")
    try:
        items = list(returned)  # type: ignore[call-overload]
    except TypeError as error:
        raise Fault(f"{kind.hook}() returned {returned!r} or failed on the way ({error}); {wanted}") from error
    for item in items:
        if not isinstance(item, Spec):
            raise Fault(f"{kind.hook}() returned {item!r} among its specs; {wanted}")
    return [_of_kind(item, kind) for item in items]


def _of_kind(spec: Spec, kind: Kind) -> Spec:
    """``spec`` in the class of its kind: a plain ``Spec`` gets the defaults, another kind's is a fault."""
    official = {k.spec for k in KINDS.values()}
    nearest = next(base for base in type(spec).__mro__ if base in official)
    if nearest is not kind.spec and nearest is not Spec:
        raise Fault(f"{kind.hook}() returned the {nearest.__name__} {spec.name!r}; it returns {kind.spec.__name__}s")
    if not isinstance(spec, kind.spec):
        spec = kind.spec(**{field.name: getattr(spec, field.name) for field in fields(Spec)})
    spec = replace(spec, **_collections(spec))
    _check_demands(spec)
    return spec


def _check_demands(spec: Spec) -> None:
    """What ``requires`` and ``conflicts`` say can be read: a component, or for ``requires`` a package."""
    for demand in spec.requires:
        if not (is_component(demand) or is_device(demand)):
            try:
                parsed(demand)
            except UserError as error:
                raise _unreadable(
                    "requires", spec, demand, "kind:name, device:type or a PEP 508 requirement"
                ) from error
    for demand in spec.conflicts:
        if not is_component(demand):
            raise _unreadable("conflicts", spec, demand, "kind:name or kind:+capability")


def _unreadable(field: str, spec: Spec, demand: str, forms: str) -> Fault:
    kind, colon, rest = demand.partition(":")
    close = get_close_matches(kind, KINDS, n=1) if colon else []
    advice = f"did you mean {close[0]}:{rest}?" if close else f"write {forms}"
    return Fault(f"{field} of {spec.name!r} has {demand!r}, which cannot be read; {advice}")


def _collections(spec: Spec) -> dict[str, Any]:
    """The fields that are collections of strings, frozen. A lone string is a usual slip: ``("a")``."""
    frozen: dict[str, Any] = {}
    for field in fields(spec):
        value = getattr(spec, field.name)
        if isinstance(field.default, tuple | frozenset):
            if not isinstance(value, tuple | list | set | frozenset) or not all(isinstance(v, str) for v in value):
                raise Fault(f"{field.name} of {spec.name!r} is {value!r}; it must be a tuple of strings")
            frozen[field.name] = type(field.default)(value)
        elif isinstance(field.default, str) and not isinstance(value, str):
            raise Fault(f"{field.name} of {spec.name!r} is {value!r}; it must be a string")
    return frozen
