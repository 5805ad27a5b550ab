"""JSON Schema (2020-12) of the job file, from the plugins that are installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema

from ptsdk.contracts.component import KIND_KEYWORD
from ptsdk.errors import UserError
from ptsdk.job.job import DEFAULTS, SLOTS, Job
from ptsdk.plugins import Entry
from ptsdk.registry import Registry

DIALECT = "https://json-schema.org/draft/2020-12/schema"
USE_IMPLIED = {"model-family": None, "tokenizer": DEFAULTS["tokenizer"]}
"""Kinds whose options may stand without ``use``, and the component they are of (None: of any)."""

_ENVIRONMENT = {"type": "string", "pattern": r"\$\{env:[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
_LOCAL = {"type": "string", "pattern": r"\.py:[A-Za-z_][A-Za-z0-9_]*$"}
_MAPS = ("properties", "patternProperties", "$defs")
_PLAIN = ("default", "examples", "enum", "const", "required")
_DROPPED = ("title", "discriminator")


def job_schema(registry: Registry) -> tuple[dict[str, Any], list[str]]:
    """The schema, and a warning for each component that cannot be imported here: it is in the
    schema by its name, with any options."""
    schemas = _Schemas(registry)
    job = Job.model_json_schema()
    defs: dict[str, Any] = {
        "environment": _ENVIRONMENT,
        **{name: schemas.adapt(section, "#/$defs") for name, section in job.pop("$defs").items()},
    }
    job = schemas.adapt(job, "#/$defs")
    for name, kind in SLOTS.items():
        if name in DEFAULTS or name == "loss":
            job["properties"][name] = schemas.optional(job["properties"][name], kind, DEFAULTS.get(name))
    for name in ("loggers", "callbacks", "train"):
        job["properties"][name] = {**job["properties"][name], "default": DEFAULTS[name]}
    job["required"] = [name for name in job["required"] if name not in (*DEFAULTS, "loss")]
    return {"$schema": DIALECT, "title": "ptsdk job", **job, "$defs": {**defs, **schemas.defs}}, schemas.warnings


class _Schemas:
    """Definitions of kinds and components, made as they are referred to."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.defs: dict[str, Any] = {}
        self.warnings: list[str] = []

    def adapt(self, node: Any, defs: str) -> Any:
        """A schema of pydantic's as a job file needs it: components by reference, ``${env:...}``
        wherever a number or a choice stands, definitions found at ``defs``."""
        if isinstance(node, list):
            return [self.adapt(item, defs) for item in node]
        if not isinstance(node, Mapping):
            return node
        if KIND_KEYWORD in node:
            rest = {key: value for key, value in node.items() if key != KIND_KEYWORD}
            return {**rest, "$ref": self.kind(node[KIND_KEYWORD])}
        adapted = {key: self._keyword(key, value, defs) for key, value in node.items() if key not in _DROPPED}
        return _or_environment(adapted)

    def _keyword(self, key: str, value: Any, defs: str) -> Any:
        if key in _MAPS:
            return {name: self.adapt(item, defs) for name, item in value.items()}
        if key == "$ref":
            return value.replace("#/$defs", defs, 1)
        return value if key in _PLAIN else self.adapt(value, defs)

    def kind(self, kind: str) -> str:
        """A reference to whatever a job may write for a component of that kind."""
        if kind not in self.defs:
            self.defs[kind] = {}  # in progress: kinds may hold each other
            self.defs[kind] = {"anyOf": list(self._alternatives(kind))}
        return f"#/$defs/{kind}"

    def _alternatives(self, kind: str) -> Iterator[dict[str, Any]]:
        entries = {entry: self.component(entry) for entry in self.registry.entries(kind)}
        bare = [name for entry, ref in entries.items() if self._complete(ref) for name in self._names(entry)]
        if bare:
            yield {"enum": bare}
        for entry, ref in entries.items():
            implied = kind in USE_IMPLIED and USE_IMPLIED[kind] in (None, entry.qualified)
            yield {"$ref": ref} if implied else {"$ref": ref, "required": ["use"]}
        yield _LOCAL
        yield {"type": "object", "properties": {"use": _LOCAL}, "required": ["use"]}

    def component(self, entry: Entry) -> str:
        """A reference to the options of one component; ``use`` is among them, but not required."""
        key = f"{entry.kind}.{entry.dist}.{entry.spec.name}"
        if key not in self.defs:
            self.defs[key] = {}
            schema = self._options(entry, f"#/$defs/{key}/$defs")
            properties = {"use": {"enum": self._names(entry)}, **schema.get("properties", {})}
            self.defs[key] = {**schema, "description": entry.spec.summary, "properties": properties}
        return f"#/$defs/{key}"

    def _options(self, entry: Entry, defs: str) -> dict[str, Any]:
        try:
            schema: dict[str, Any] = self.adapt(self.registry.load(entry).model_json_schema(), defs)
        except (UserError, PydanticInvalidForJsonSchema) as error:
            reason = " ".join(str(error).split())
            self.warnings.append(f"{entry.kind} {entry.qualified}: its options are not known here: {reason}")
            return {"type": "object"}
        if entry.kind == "model-family":
            schema["oneOf"] = [{"required": ["path"]}, {"required": ["config"]}]
        return schema

    def _complete(self, ref: str) -> bool:
        """Whether a component needs no options, so that its name alone will do."""
        schema = self.defs[ref.removeprefix("#/$defs/")]
        return not schema.get("required") and "oneOf" not in schema

    def _names(self, entry: Entry) -> list[str]:
        bare = entry.spec.name in self.registry.names(entry.kind)
        return [entry.spec.name, entry.qualified] if bare else [entry.qualified]

    def optional(self, section: dict[str, Any], kind: str, default: str | None) -> dict[str, Any]:
        """A section that may be left out or null, and whose options may stand without ``use``."""
        default_refs = [
            {"$ref": self.component(entry)}
            for entry in self.registry.entries(kind)
            if default == entry.qualified or (kind == "loss" and default is None)
        ]
        reference = {"$ref": f"#/$defs/{kind}"}
        shown: dict[str, Any] = {"description": section["description"]}
        if kind != "loss":
            shown["default"] = default
        return {**shown, "anyOf": [reference, *default_refs, {"type": "null"}]}


def _or_environment(schema: dict[str, Any]) -> dict[str, Any]:
    """A number, a flag or a choice may be given as ``${env:NAME}``."""
    varies = schema.get("type") in ("integer", "number", "boolean") or "enum" in schema
    if not varies or "const" in schema:
        return schema
    outside: dict[str, Any] = {key: schema.pop(key) for key in ("description", "default") if key in schema}
    return {**outside, "anyOf": [schema, {"$ref": "#/$defs/environment"}]}
