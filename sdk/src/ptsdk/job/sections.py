"""The sections of a job that are not components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from ptsdk.contracts.component import Use
from ptsdk.contracts.dataset import Dataset
from ptsdk.data.order import Cut
from ptsdk.job.wording import shown

LARGEST_MICRO_BATCH = 8


def one_or_many(value: Any) -> Any:
    """A section that holds a list may hold its one item alone; null is an empty list."""
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


class OneOrMany:
    """Marks a tuple that a job may give as its one item alone."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(one_or_many, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many, many["items"], {"type": "null"}]}


class Section(BaseModel):
    """Frozen; keys it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


Datasets = Annotated[tuple[Annotated[Dataset, Use("dataset")], ...], OneOrMany()]


class DataSection(Section):
    """``data:``: what is trained on, and how rows become sequences."""

    train: Datasets = Field(description="data set to train on, or a list of them, each with a `weight`")
    validation: Datasets = Field((), description="data set to validate on, or a list of them")
    max_length: int = Field(2048, ge=2, lt=2**31, description="tokens of the longest document, and of a pack")
    packing: bool = Field(False, description="fill sequences of `max_length` tokens with whole documents")
    streaming: bool = Field(
        False,
        description="make training rows, of JSONL files, into examples when a step reads them: data may exceed memory",
    )
    prefetch: bool = Field(
        True,
        description="make the batches of a step while the one before is taken; methods that generate have none to make",
    )
    shuffle: bool = Field(True, description="another order each epoch, decided by `train.seed`")
    on_long_row: Literal["truncate", "drop", "error"] = Field(
        "truncate", description="what becomes of a row of more than `max_length` tokens"
    )
    on_bad_row: Literal["error", "skip"] = Field("error", description="what a malformed row does to the run")

    @field_validator("train", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if not one_or_many(value):
            raise ValueError("there is no data set to train on")
        return value


class CompileSection(Section):
    """``train.compile:``: what torch.compile makes programs of. ``true`` is all that every job can have."""

    model: bool = Field(False, description="the blocks: one program for all that are alike, whatever the lengths")
    loss: bool = Field(False, description="what a loss does to a block of logits between its matrix products")
    optimizer: bool = Field(False, description="the update of all weights; pays where the optimizer is not fused")

    @model_validator(mode="before")
    @classmethod
    def _all_or_nothing(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return values
        try:
            return {"model": TypeAdapter(bool).validate_python(values)}
        except ValidationError:
            raise ValueError(f"expected true, false or a mapping, got {shown(values)}") from None

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "boolean"}, handler.resolve_ref_schema(handler(schema))]}

    def __bool__(self) -> bool:
        """Whether anything is compiled."""
        return self.model or self.loss or self.optimizer


class TrainSection(Section):
    """``train:``: how long, how much at once, and what is kept."""

    steps: int | None = Field(None, gt=0, lt=2**31, description="optimizer steps; instead of `epochs`")
    epochs: float | None = Field(
        None, gt=0, le=10**6, description="passes over the training data; 1 where `steps` is not given"
    )
    batch_size: int = Field(8, gt=0, lt=2**31, description="sequences an optimizer step, over all processes")
    micro_batch_size: int | None = Field(
        LARGEST_MICRO_BATCH,
        gt=0,
        description="sequences a process takes through the model at once; must divide `batch_size`. "
        f"By default its largest divisor up to {LARGEST_MICRO_BATCH}",
    )
    micro_batch_tokens: int | None = Field(
        None,
        gt=0,
        lt=2**31,
        description="tokens a process takes through the model at once, in place of `micro_batch_size`: a step has as "
        "few micro-batches as hold its sequences; one that is longer goes alone",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of the sample order, new weights and dropout")
    clip_grad_norm: float | None = Field(1.0, gt=0, description="gradients longer than this are shortened; null: never")
    save_every: int | None = Field(None, gt=0, description="steps between checkpoints; null: at the end alone")
    async_save: Literal["auto"] | bool = Field(
        "auto",
        description="write checkpoints while training goes on, from a copy in the host's memory; auto: where "
        "training is on an accelerator, whose memory is copied in any case. The last is always waited for",
    )
    validate_every: int | None = Field(None, gt=0, description="steps between validations; null: at the end alone")
    validate_at_start: bool = Field(False, description="validate before the first step too")
    on_save_error: Literal["stop", "continue"] = Field(
        "stop", description="what a checkpoint that cannot be written (a full disk) does to the run"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="what a loss or gradient that is not finite does to the run; skip: the step is not taken",
    )
    max_skipped: int = Field(10, ge=1, description="steps that `on_nonfinite: skip` may skip, before the run stops")
    keep_last: int | None = Field(2, gt=0, description="checkpoints kept; null: all")
    compile: CompileSection = Field(
        CompileSection(),
        description="what to compile with torch.compile: {model, loss, optimizer}; true is {model: true}",
    )
    activation_checkpointing: Literal["none", "full", "selective"] = Field(
        "none", description="recompute activations in the backward: all of a block, or what is cheap for its size"
    )
    activation_checkpointing_every: int = Field(
        1, ge=1, description="of how many blocks the first recomputes: 2 is every second one; the others keep theirs"
    )
    activation_offloading: bool = Field(
        False, description="with activation_checkpointing on an accelerator: keep what blocks start from on the host"
    )
    optimizer_in_backward: bool = Field(
        False, description="update each weight as soon as its gradient is there; one micro-batch a step, no clipping"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """What is left out and depends on another key."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("steps") is None and values.get("epochs") is None:
            values["epochs"] = 1
        if values.get("micro_batch_size") is None:
            by_tokens = values.get("micro_batch_tokens") is not None
            values["micro_batch_size"] = None if by_tokens else default_micro_batch(values.get("batch_size", 8))
        return values

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("`steps` and `epochs` are both given; the length of a run is one of them")
        return self

    @model_validator(mode="after")
    def _one_cut(self) -> Self:
        if self.micro_batch_size is not None and self.micro_batch_tokens is not None:
            raise ValueError(
                "`micro_batch_size` and `micro_batch_tokens` are both given; the size of a micro-batch is one of them"
            )
        return self

    @property
    def cut(self) -> Cut:
        """How a process's part of a step becomes micro-batches."""
        return Cut(self.micro_batch_size, self.micro_batch_tokens)


def default_micro_batch(batch_size: object) -> int:
    """The largest divisor of ``batch_size`` up to 8 (8 where it is no number: that is refused elsewhere)."""
    if isinstance(batch_size, str) and batch_size.isdecimal():
        batch_size = int(batch_size)
    if not isinstance(batch_size, int) or batch_size < 1:
        return LARGEST_MICRO_BATCH
    return max(n for n in range(1, LARGEST_MICRO_BATCH + 1) if batch_size % n == 0)
