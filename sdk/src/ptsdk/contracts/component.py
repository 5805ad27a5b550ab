"""The base of everything a job can name: options as fields, behaviour as methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema


class Component(BaseModel):
    """A frozen set of options with behaviour.

    Fields are the YAML options, each with a ``Field(description=...)``; methods do the work.
    A component holds no live state: what changes during a run is kept by the run.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False
    )

    kind: ClassVar[str] = ""
    """The kind of the contract, as in ``ptsdk list KIND``; each contract sets it."""


KIND_KEYWORD = "x-ptsdk-kind"
"""In a JSON Schema: a component of that kind stands here."""


class Resolver(Protocol):
    """Turns what a job says of a component into the component; kept in the validation context."""

    def __call__(self, kind: str, value: object) -> Component:
        """The component of that kind; a ValueError says why there is none."""
        ...


@dataclass(frozen=True)
class Use:
    """Marks a field that holds another component: ``reward: Annotated[Reward, Use("reward")]``.

    In a job the value is a bare name or a mapping with ``use``; from Python it may be an instance.
    """

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def resolve(value: object, info: ValidationInfo) -> Component:
            if isinstance(value, Component) and value.kind == self.kind:
                return value
            if isinstance(value, Component):
                raise ValueError(
                    f"expected a component of the kind {self.kind}, got the {value.kind} {type(value).__name__}"
                )
            if not info.context or "resolve" not in info.context:
                raise ValueError(f"a {self.kind} can be named only inside a job")
            resolver: Resolver = info.context["resolve"]
            return resolver(self.kind, value)

        return core_schema.with_info_plain_validator_function(
            resolve, serialization=core_schema.plain_serializer_function_ser_schema(record)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Anything of that kind; ``ptsdk schema`` puts what is installed in its place."""
        return {KIND_KEYWORD: self.kind}


def record(component: Component) -> dict[str, Any]:
    """The component as a job would spell it in full; ``use`` is the name it was resolved by."""
    used = getattr(component, "__ptsdk_use__", None)
    options = component.model_dump(mode="json")
    return {"use": used, **options} if used else options
