"""``ptsdk doctor``: what is wrong with this environment, and the fix."""

from __future__ import annotations

import platform
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import click

from ptsdk.cli.output import print_json
from ptsdk.errors import UserError
from ptsdk.plugins import CORE, Plugins, Record
from ptsdk.registry import Entry, Registry, in_full, install, is_component, missing_requirements, unmet

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``fix`` says what to do where it is not ``ok``."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """What is wrong with this environment, and the fix. Exit code 1 when something is."""
    context: CliContext = ctx.obj
    checks = list(examine(context.plugins, context.registry))
    ok = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        _print(checks)
    ctx.exit(0 if ok else 1)


def examine(plugins: Plugins, registry: Registry) -> Iterator[Check]:
    """Every check, the environment first. Imports every component, torch included."""
    yield _python()
    yield _torch()
    for notice in plugins.notices:
        yield Check("discovery", False, notice, "correct the variable or option, or uninstall one of the two")
    for record in plugins.records:
        yield _plugin(record)
        yield from _requirements(record)
        if record.status == "loaded":
            yield from _components(record, registry)
    yield from _clashes(plugins)


def _python() -> Check:
    oldest = ".".join(map(str, OLDEST_PYTHON))
    ok = sys.version_info >= OLDEST_PYTHON
    return Check("python", ok, platform.python_version(), "" if ok else f"use Python {oldest} or newer")


def _torch() -> Check:
    """torch and the devices it sees; a damaged one raises whatever its libraries raise."""
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        return Check("torch", False, f"does not import: {error}", "pip install --force-reinstall torch")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return Check("torch", True, f"{torch.__version__}, {', '.join(devices) or 'CPU only'}")


def _plugin(record: Record) -> Check:
    name = f"plugin {record.dist}"
    if record.status == "broken":
        fix = f"do as the message says, upgrade it, or: pip uninstall {record.dist}"
        return Check(name, False, f"{record.version} is broken: {record.error}", fix)
    if record.status == "blocked":
        return Check(name, True, f"{record.version}, {record.error}")
    told = f"{record.version}, API {record.api}, components: {len(record.components)}"
    return Check(name, True, f"{told}; {record.advice}" if record.advice else told)


def _requirements(record: Record) -> Iterator[Check]:
    """Its ``Requires-Dist`` against what is installed. pip lets them drift apart."""
    name = f"requirements {record.dist}"
    try:
        missing = unmet(metadata.requires(record.dist) or ())
    except metadata.PackageNotFoundError:
        yield Check(name, False, "its metadata is gone", f"pip install --force-reinstall {record.dist}")
    except UserError as error:
        yield Check(name, False, str(error), f"pip install -U {record.dist}")
    else:
        fix = f"pip install {_quoted(missing)}" if missing else ""
        yield Check(name, not missing, f"missing {_quoted(missing)}" if missing else "met", fix)


def _components(record: Record, registry: Registry) -> Iterator[Check]:
    faults = [check for entry in record.components for check in _component(entry, registry)]
    yield from faults or [Check(f"components {record.dist}", True, f"all {len(record.components)} import")]


def _component(entry: Entry, registry: Registry) -> Iterator[Check]:
    """What keeps a component from being used; nothing for a sound one."""
    name = f"{entry.kind} {entry.qualified}"
    try:
        needs = [Check(name, False, detail, fix) for detail, fix in _needs(entry, registry)]
        yield from needs
        if needs:
            return
        if entry.kind == "command":
            registry.load_command(entry)
        else:
            registry.load(entry)
    except UserError as error:
        first = error.problems[0]
        yield Check(name, False, first.message, first.hint)


def _needs(entry: Entry, registry: Registry) -> Iterator[tuple[str, str]]:
    """What a component requires and is not here, and the fix."""
    for requirement in missing_requirements(entry.spec):
        yield f"needs {requirement}, which is not installed", install(requirement, entry.dist)
    for demand in filter(is_component, entry.spec.requires):
        if not registry.fulfilling(demand):
            absent = registry.absent(demand)
            yield f"cannot be used: {absent.message}", absent.hint


def _quoted(requirements: tuple[str, ...]) -> str:
    return " ".join(f"'{requirement}'" for requirement in requirements)


def _clashes(plugins: Plugins) -> Iterator[Check]:
    """Two providers of one name are legal until a job uses the bare name; better known before."""
    claims: dict[str, list[Entry]] = defaultdict(list)
    for record in plugins.records:
        for entry in record.components:
            claims[f"{entry.kind} {entry.spec.name!r}"].append(entry)
            for field in ("architectures", "schemes"):
                for value in getattr(entry.spec, field, ()):
                    claims[f"{field} {value!r}"].append(entry)
    for claim, entries in claims.items():
        if len(entries) > 1:
            yield _clash(claim, entries)


def _clash(claim: str, entries: list[Entry]) -> Check:
    """Core's own verbs and schemes stay core's, which is no fault; any other name is nobody's alone."""
    told = f"{claim} is provided by {', '.join(f'{e.dist} {e.version}' for e in entries)}"
    scheme, verb = claim.startswith("schemes"), entries[0].kind == "command"
    if entries[0].dist == CORE and (scheme or verb):
        return Check("name clash", True, f"{told}; it means core's{_others(entries) if verb else ''}")
    forms = "" if scheme else f"write {' or '.join(map(in_full, entries))}, or "
    return Check("name clash", False, told, f"{forms}uninstall one")


def _others(entries: list[Entry]) -> str:
    return f", so write {' and '.join(map(in_full, entries[1:]))}"


def _print(checks: list[Check]) -> None:
    for check in checks:
        mark = click.style("ok  ", fg="green") if check.ok else click.style("BAD ", fg="red", bold=True)
        click.echo(f"{mark} {check.name}: {check.detail}")
        if check.fix and not check.ok:
            click.echo(f"       fix: {check.fix}")
