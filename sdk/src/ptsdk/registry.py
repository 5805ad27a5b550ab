"""Look-up: which installed component a name in a job means, and its class on use."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptsdk import hints
from ptsdk._importing import check_class, import_file, import_target, is_plain, mixed_in
from ptsdk._installed import normalise
from ptsdk._loading import DEVICE, is_component, is_device
from ptsdk._requirements import install, unmet
from ptsdk.errors import Problem, UserError
from ptsdk.plugins import CORE, Entry, Plugins, Record
from ptsdk.specs import KINDS, Kind, Spec

if TYPE_CHECKING:
    import click

__all__ = [
    "Entry",
    "Registry",
    "a",
    "devices",
    "in_full",
    "install",
    "is_component",
    "kind_named",
    "missing_requirements",
    "unmet",
]


class Registry:
    """The components of the loaded plugins, found by kind and name. Nothing is imported before
    ``load``, and no plugin takes precedence over another. Only a word of the command line and a URL's scheme
    mean core's own, whoever else claims them.

    Args:
        plugins: from ``scan``.
        local_code: whether a job may name a class in a file of its own.
    """

    def __init__(self, plugins: Plugins, *, local_code: bool = True) -> None:
        self.plugins, self.local_code = plugins, local_code
        self._entries: dict[str, list[Entry]] = {kind: [] for kind in KINDS}
        for record in plugins.records:
            for entry in record.components:
                self._entries[entry.kind].append(entry)

    def without_local_code(self) -> Registry:
        """The same components, for a job whose files are not trusted."""
        return Registry(self.plugins, local_code=False)

    def entries(self, kind: str) -> list[Entry]:
        """Every component of a kind, core's first, then by dist in the order it declared them.

        Raises:
            UserError: there is no such kind.
        """
        return list(self._entries[kind_named(kind).name])

    def names(self, kind: str) -> list[str]:
        """What a job can write for a kind: the bare name, or ``dist/name`` where two dists have it."""
        return [e.spec.name if self._meant(kind, e.spec.name) == [e] else e.qualified for e in self.entries(kind)]

    def find(self, kind: str, name: str) -> Entry:
        """The component that ``name`` or ``dist/name`` means.

        Raises:
            UserError: no plugin provides it, two do, or the one that would is broken or disabled.
        """
        dist, slash, bare = name.rpartition("/")
        if slash:
            found = [e for e in self.entries(kind) if e.dist == normalise(dist) and e.spec.name == bare]
        else:
            found = self._meant(kind, bare)
        if len(found) == 1:
            return found[0]
        if found:
            raise _ambiguous(f"{len(found)} plugins provide the {kind} {name!r}", found)
        raise self._unknown_in(kind, bare, dist) if slash else self._unknown(kind, name)

    def by_architecture(self, architecture: str) -> Entry:
        """The model family that reads config.json's ``architectures: [architecture]``.

        Raises:
            UserError: none does, or two do.
        """
        found = self._having("model-family", "architectures", architecture)
        if len(found) > 1:
            raise _ambiguous(f"{len(found)} plugins read the architecture {architecture!r}", found)
        if not found:
            dist = hints.architecture_provider(architecture)
            known = self._values("model-family", "architectures")
            raise self._not_provided(
                f"no installed plugin reads the architecture {architecture!r}", dist, _suggest("", known)
            )
        return found[0]

    def by_scheme(self, scheme: str) -> Entry:
        """The checkpoint source that answers to ``scheme://``: core's, if it does.

        Raises:
            UserError: none does, or two do.
        """
        found = _core_or_all(self._having("checkpoint-source", "schemes", scheme))
        if len(found) > 1:
            hint = f"uninstall one, or leave it out: ptsdk --no-plugin {found[-1].dist} ..."
            raise UserError(Problem(f"{len(found)} plugins fetch {scheme}:// checkpoints: {_providers(found)}", hint))
        if not found:
            known = self._values("checkpoint-source", "schemes")
            raise self._not_provided(f"no installed plugin fetches {scheme}:// checkpoints", None, _suggest("", known))
        return found[0]

    def fulfilling(self, demand: str) -> list[Entry]:
        """The installed components that ``kind:name``, ``kind:dist/name`` or ``kind:+capability`` means."""
        return [entry for entry in self.entries(demand.partition(":")[0]) if entry.fulfils(demand)]

    def absent(self, demand: str) -> Problem:
        """Why nothing fulfils a ``demand``, and what to install or mend."""
        kind, _, name = demand.partition(":")
        elsewhere = f"install a plugin with such {a(kind)}; `ptsdk list {kind}` shows those that are here"
        if name.startswith("+"):
            return Problem(f"no installed plugin has {a(kind)} that supports {name[1:]}", elsewhere)
        dist, _, bare = name.rpartition("/")
        message = f"no installed plugin provides the {kind} {name}"
        known = get_close_matches(bare, self.names(kind), n=1)
        hint = f"did you mean {known[0]}?" if known else elsewhere
        return self._not_provided(message, dist or hints.provider(kind, bare), hint, bare).problems[0]

    def formats(self) -> list[Entry]:
        """Every checkpoint format, in the order to try them."""
        return self.entries("checkpoint-format")

    def load(self, entry: Entry) -> type[Any]:
        """Import the class of a component and check it against its kind's contract.

        Raises:
            UserError: naming the dist and the target: it does not import, is not there, or is not
                a complete class of the contract.
        """
        what = f"{entry.kind} {entry.spec.name!r} of {entry.dist} {entry.version} (target {entry.spec.target})"
        return check_class(import_target(entry), entry.kind, what)

    def load_command(self, entry: Entry) -> click.Command:
        """Import a verb.

        Raises:
            UserError: it does not import or is no ``click.Command``.
        """
        import click

        command = import_target(entry)
        if not isinstance(command, click.Command):
            what = f"command {entry.spec.name!r} of {entry.dist} {entry.version} (target {entry.spec.target})"
            raise UserError(Problem(f"the {what} is {command!r}", "decorate it with @click.command()"))
        return command

    def load_local(self, reference: str, kind: str, base: Path) -> tuple[type[Any], str]:
        """The class of ``./file.py:Class`` and the SHA-256 of the file, which is relative to ``base``.

        A class without a base is made a component of the kind, its annotated attributes the options.

        Raises:
            UserError: local code is forbidden; no such file or class, it does not import, or it is not of
                the kind.
        """
        if not self.local_code:
            hint = "leave --no-local-code out if you trust the job and this file"
            raise UserError(Problem(f"{reference} is local code, which --no-local-code forbids", hint))
        found, digest, path = import_file(reference, base)
        if is_plain(found, kind):
            found = mixed_in(found, kind)
        return check_class(found, kind, f"{kind} {reference!r} (in {path})"), digest

    def _meant(self, kind: str, name: str) -> list[Entry]:
        """What a bare name can mean; it is ambiguous where that is more than one."""
        found = [entry for entry in self.entries(kind) if entry.spec.name == name]
        return _core_or_all(found) if kind == "command" else found

    def _having(self, kind: str, field: str, value: str) -> list[Entry]:
        return [entry for entry in self.entries(kind) if value in getattr(entry.spec, field)]

    def _values(self, kind: str, field: str) -> list[str]:
        return sorted({value for entry in self.entries(kind) for value in getattr(entry.spec, field)})

    def _unknown(self, kind: str, name: str) -> UserError:
        message = f"no installed plugin provides the {kind} {name!r}"
        return self._not_provided(message, hints.provider(kind, name), _suggest(name, self.names(kind)), name)

    def _unknown_in(self, kind: str, name: str, dist: str) -> UserError:
        record = self.plugins.get(dist)
        if record is None:
            known = [r.dist for r in self.plugins.records]
            return UserError(Problem(f"no plugin {dist!r} is installed", _suggest(dist, known)))
        if record.status != "loaded":
            return _unusable(record, f"there is no {kind} {dist}/{name}")
        known = [entry.spec.name for entry in self.entries(kind) if entry.dist == record.dist]
        return UserError(Problem(f"{record.dist} has no {kind} {name!r}", _suggest(name, known, "it has")))

    def _not_provided(self, message: str, dist: str | None, otherwise: str, name: str = "") -> UserError:
        """Why nothing answers, the likeliest reason first: the plugin that has it is broken or
        disabled, is not installed, or ``otherwise``. Broken plugins are named in any case,
        for nobody knows what they have."""
        record = self.plugins.get(dist) if dist else None
        record = record or next((r for r in self.plugins.broken if name and name in r.dist.split("-")), None)
        if record and record.status != "loaded":
            return _unusable(record, message)
        hint = f"pip install {dist}" if dist and not record else otherwise
        return UserError(Problem(message, hint), *(_may_have(r) for r in self.plugins.broken))


def a(kind: str) -> str:
    """The kind with its article."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def kind_named(name: str) -> Kind:
    """The kind of that name.

    Raises:
        UserError: there is none.
    """
    if name not in KINDS:
        raise UserError(Problem(f"there is no kind {name!r}", _suggest(name, list(KINDS), "kinds")))
    return KINDS[name]


def in_full(entry: Entry) -> str:
    """What a person writes, in a job or on a command line, to mean this component and no other's."""
    return f"`ptsdk {entry.qualified}`" if entry.kind == "command" else f"use: {entry.qualified}"


def missing_requirements(spec: Spec) -> tuple[str, ...]:
    """The PEP 508 requirements of ``spec`` that this environment does not meet.

    Requirements on other components of a job (``adapter:lora``) and on the device it trains on
    (``device:cuda``) are the resolver's business.

    Raises:
        UserError: a requirement that cannot be read.
    """
    return unmet(r for r in spec.requires if not (is_component(r) or is_device(r)))


def devices(spec: Spec) -> tuple[str, ...]:
    """The types of device that ``spec`` can be used on, such as ``cuda``; empty where any will do."""
    return tuple(r.removeprefix(DEVICE) for r in spec.requires if is_device(r))


def _ambiguous(message: str, found: list[Entry]) -> UserError:
    return UserError(Problem(f"{message}: {_providers(found)}", " or ".join(map(in_full, found))))


def _providers(found: list[Entry]) -> str:
    return ", ".join(f"{entry.dist} {entry.version}" for entry in found)


def _core_or_all(found: list[Entry]) -> list[Entry]:
    """What core has of them, if anything: no plugin takes it away."""
    return [entry for entry in found if entry.dist == CORE] or found


def _unusable(record: Record, message: str) -> UserError:
    if record.status == "blocked":
        return UserError(Problem(f"{message}: {record.dist} is {record.error}"))
    hint = f"mend or upgrade {record.dist}; `ptsdk doctor` has the details"
    return UserError(Problem(f"{message}: {record.dist} {record.version} is broken: {record.error}", hint))


def _may_have(record: Record) -> Problem:
    return Problem(f"{record.dist} {record.version} may provide it but is broken: {record.error}")


def _suggest(name: str, known: list[str], label: str = "installed") -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.6) if name else []
    return f"did you mean {close[0]}?" if close else f"{label}: {', '.join(known) or 'none'}"
