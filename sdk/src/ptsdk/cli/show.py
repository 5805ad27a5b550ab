"""``ptsdk show``: one component, its options and what it demands."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.output import print_json, print_table
from ptsdk.registry import Entry, Registry, missing_requirements
from ptsdk.specs import Spec

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from ptsdk.cli.main import CliContext

BASE_FIELDS = frozenset(field.name for field in fields(Spec))


@click.command()
@click.argument("kind")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def show(context: CliContext, kind: str, name: str, as_json: bool) -> None:
    """The component NAME of a KIND: options with types and defaults, capabilities, origin."""
    entry = context.registry.find(kind, name)
    description = describe(entry, context.registry)
    if as_json:
        print_json(description)
    else:
        _print(description)


def describe(entry: Entry, registry: Registry) -> dict[str, Any]:
    """Everything there is to say about a component, as plain data.

    Raises:
        UserError: it does not import.
    """
    spec = entry.spec
    return {
        "kind": entry.kind,
        "name": spec.name,
        "dist": entry.dist,
        "version": entry.version,
        "target": spec.target,
        "summary": spec.summary,
        **_documentation(entry, registry),
        "supports": sorted(spec.supports),
        "requires": list(spec.requires),
        "missing": list(missing_requirements(spec)),
        "conflicts": list(spec.conflicts),
        "why": spec.why,
        **{f.name: _plain(getattr(spec, f.name)) for f in fields(spec) if f.name not in BASE_FIELDS},
    }


def _documentation(entry: Entry, registry: Registry) -> dict[str, Any]:
    if entry.kind == "command":
        command = registry.load_command(entry)
        return {"description": inspect.cleandoc(command.help or ""), "options": [_parameter(p) for p in command.params]}
    component = registry.load(entry)
    return {"description": inspect.getdoc(component) or "", "options": options_of(component)}


def options_of(component: type[BaseModel]) -> list[dict[str, Any]]:
    """The options of a component class, in the order they are declared."""
    return [_option(name, field) for name, field in component.model_fields.items()]


def _option(name: str, field: FieldInfo) -> dict[str, Any]:
    return {
        "name": field.alias or name,
        "type": type_name(field.annotation),
        "required": field.is_required(),
        "default": None if field.is_required() else _plain(field.get_default(call_default_factory=True)),
        "description": field.description or "",
    }


def _parameter(parameter: click.Parameter) -> dict[str, Any]:
    default = parameter.to_info_dict()["default"]
    return {
        "name": max([*parameter.opts, *parameter.secondary_opts], key=len),
        "type": parameter.type.name,
        "required": parameter.required,
        "default": None if callable(default) else _plain(default),
        "description": getattr(parameter, "help", None) or "",
    }


def type_name(annotation: Any) -> str:
    """An annotation as a person writes it: ``float``, ``int | None``, ``'a' | 'b'``."""
    if hasattr(annotation, "__metadata__"):  # Annotated: what it adds is not part of the type
        return type_name(annotation.__origin__)
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return "None" if annotation is type(None) else annotation.__name__
    arguments = getattr(annotation, "__args__", ())
    origin = getattr(annotation, "__origin__", None)
    name = getattr(origin, "__name__", "") or getattr(origin, "_name", "") or ""
    if origin is not None and "Literal" in str(origin):
        return " | ".join(repr(value) for value in arguments)
    if not arguments:
        return str(annotation).removeprefix("typing.")
    inner = [("..." if a is ... else type_name(a)) for a in arguments]
    if name in ("", "Union", "UnionType", "Optional"):
        return " | ".join(inner)
    return f"{name}[{', '.join(inner)}]"


def _plain(value: object) -> Any:
    """A default as JSON can hold it; a component or another object as its text."""
    if isinstance(value, frozenset | set):
        return sorted(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)


def _print(description: dict[str, Any]) -> None:
    click.secho(f"{description['kind']} {description['name']}", bold=True, nl=False)
    click.echo(f"  from {description['dist']} {description['version']} ({description['target']})")
    click.echo(description["description"] or description["summary"])
    click.secho("\nOptions", bold=True)
    rows: list[tuple[str, ...]] = [
        (o["name"], o["type"], "required" if o["required"] else f"default {json.dumps(o['default'])}", o["description"])
        for o in description["options"]
    ]
    print_table(rows or [("none",)], indent=2)
    shown = {"kind", "name", "dist", "version", "target", "summary", "description", "options"}
    traits = [(key, _words(value)) for key, value in description.items() if key not in shown and value]
    if traits:
        click.secho("\nTraits", bold=True)
        print_table(traits, indent=2)


def _words(value: object) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)
