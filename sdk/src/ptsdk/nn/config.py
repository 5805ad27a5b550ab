"""Reading config.json: what a family understands, and what it must refuse.

A key that a family does not declare cannot change its maths in transformers either, so a
checkpoint's unknown keys are passed over; one that would is declared with the values that are
supported. In a job, where a key is written by hand, an unknown one is a mistake.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from torch import Tensor

from ptsdk.errors import Problem, UserError
from ptsdk.nn.rope import inverse_frequencies, linear_scaled, llama3_scaled

MOST_LAYERS = 10_000
"""A mistyped number would be built, a layer at a time, until memory ends."""


class FamilyConfig(BaseModel):
    """config.json's keys as fields. A family subclasses it (or ``DecoderConfig``), giving
    ``architectures`` and ``model_type`` their defaults."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())
    older_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of older config.json files that a validator folds into fields."""

    architectures: tuple[str, ...]
    model_type: str
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    use_cache: bool = True
    dtype: str | None = None
    torch_dtype: str | None = None
    transformers_version: str | None = None
    quantization_config: None = Field(None, description="weights in fewer bits, which a family does not read")

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """The fields of a checkpoint's config.json; keys without a field are passed over.

        Raises:
            UserError: a value this family does not support, one problem a key.
        """
        try:
            return cls.model_validate(dict(config))
        except ValidationError as error:
            problems = [_problem(cls, entry["loc"], entry["msg"], entry["input"]) for entry in error.errors()]
            raise UserError(*problems) from None

    @classmethod
    def complete(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """``config`` with every default, as transformers reads it.

        Raises:
            UserError: a key without a field, or as ``read``.
        """
        known = set(cls.model_fields) | cls.older_keys
        unknown = [_unknown(key, known) for key in config if key not in known]
        if unknown:
            raise UserError(*unknown)
        settings = cls.read(config)
        # A null that takes the place of another default has to be written: left out, it would be that default again.
        defaults = ((key, field.default) for key, field in cls.model_fields.items())
        nulls = {key: None for key, default in defaults if getattr(settings, key) is None and default is not None}
        return {**settings.model_dump(mode="json", exclude_none=True), **nulls}


def _problem(family: type[FamilyConfig], place: tuple[int | str, ...], message: str, value: object) -> Problem:
    key = ".".join(str(part) for part in place)
    if not key:
        return Problem(message.removeprefix("Value error, "), path="model.config")
    return Problem(
        f"{key} = {value!r} is not supported by {family.__name__}: {message}",
        hint="a checkpoint that needs it takes another family; in a job, correct the value",
        path=f"model.config.{key}",
    )


def _unknown(key: str, known: set[str]) -> Problem:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(known))}"
    return Problem(f"unknown key {key!r}", hint=hint, path=f"model.config.{key}")


class RopeParameters(BaseModel):
    """One entry of ``rope_parameters``: a base, and how frequencies are scaled from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    needed: ClassVar[dict[str, tuple[str, ...]]] = {
        "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    }

    rope_type: Literal["default", "linear", "llama3"] = "default"
    rope_theta: PositiveFloat
    factor: PositiveFloat | None = None
    low_freq_factor: PositiveFloat | None = None
    high_freq_factor: PositiveFloat | None = None
    original_max_position_embeddings: PositiveInt | None = None
    partial_rotary_factor: float | None = Field(None, ge=1, le=1)

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        missing = [key for key in self.needed.get(self.rope_type, ()) if getattr(self, key) is None]
        if missing:
            raise ValueError(f"rope_type {self.rope_type} needs {', '.join(missing)}")
        return self

    def inverse_frequencies(self, head_dim: int, device: torch.device) -> Tensor:
        """float32 [E / 2], in radians a token."""
        inv_freq = inverse_frequencies(head_dim, self.rope_theta, device)
        match self.rope_type, self.factor, self.low_freq_factor, self.high_freq_factor:
            case "linear", float(factor), _, _:
                return linear_scaled(inv_freq, factor)
            case "llama3", float(factor), float(low), float(high):
                assert self.original_max_position_embeddings is not None
                return llama3_scaled(inv_freq, factor, low, high, self.original_max_position_embeddings)
        return inv_freq


def rope_entry(given: Mapping[str, Any] | None, theta: float) -> dict[str, Any]:
    """``given`` as ``rope_parameters`` has it: ``type`` is the older name of ``rope_type``, and the
    base stood beside it."""
    entry = dict(given or {})
    older = entry.pop("type", None)
    return {"rope_theta": theta, **({"rope_type": older} if older else {}), **entry}


class DecoderConfig(FamilyConfig):
    """What every decoder's config.json has. Families override defaults and add keys."""

    splits_width: ClassVar[bool] = True
    """Whether transformers refuses a hidden_size that is no multiple of the number of heads, even
    where ``head_dim`` is given."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    max_position_embeddings: PositiveInt = 2048
    initializer_range: float = Field(0.02, ge=0)
    rms_norm_eps: float = Field(1e-6, ge=0)
    tie_word_embeddings: bool = False
    attention_dropout: float = Field(0.0, ge=0, le=0, description="not implemented: it must be 0")
    partial_rotary_factor: float | None = Field(None, ge=1, le=1, description="not implemented: heads turn whole")

    @property
    def kv_heads(self) -> int:
        """K; one for each query head unless given."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """E; D / H unless given."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.num_hidden_layers > MOST_LAYERS:
            raise ValueError(f"num_hidden_layers {self.num_hidden_layers} is more than {MOST_LAYERS}")
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise ValueError(
                f"pad_token_id {self.pad_token_id} is no token of vocab_size {self.vocab_size}; set it, or null"
            )
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        heads = self.num_attention_heads
        if self.hidden_size % heads and (self.splits_width or self.head_dim is None):
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {heads}")
        if heads % self.kv_heads:
            raise ValueError(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {self.kv_heads}")
        if self.head_size % 2:
            raise ValueError(f"head_dim {self.head_size} is odd: rotary embedding turns pairs")
        return self


class RotaryConfig(DecoderConfig):
    """A decoder with one rotation for all blocks, in the keys of transformers 5
    (``rope_parameters``) or older (``rope_theta``, ``rope_scaling``)."""

    older_keys = frozenset({"rope_theta", "rope_scaling"})

    rope_parameters: RopeParameters
    original_max_position_embeddings: None = Field(None, description="belongs into rope_parameters")

    @model_validator(mode="before")
    @classmethod
    def _fold_older_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        config = dict(config)
        theta, scaling = config.pop("rope_theta", 10_000.0), config.pop("rope_scaling", None)
        config["rope_parameters"] = rope_entry(scaling or config.get("rope_parameters"), theta)
        return config
