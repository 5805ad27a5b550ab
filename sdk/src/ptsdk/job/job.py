"""The job: everything a run is made of, validated and frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator

from ptsdk.contracts.adapter import Adapter
from ptsdk.contracts.component import Use
from ptsdk.contracts.events import Callback, Logger
from ptsdk.contracts.loss import Loss
from ptsdk.contracts.method import Method
from ptsdk.contracts.model import ModelFamily
from ptsdk.contracts.optimizer import Optimizer
from ptsdk.contracts.quantizer import Quantizer
from ptsdk.contracts.schedule import Schedule
from ptsdk.contracts.strategy import Strategy
from ptsdk.contracts.tokenizer import TokenizerSource
from ptsdk.errors import Problem, UserError
from ptsdk.job.sections import DataSection, OneOrMany, Section, TrainSection
from ptsdk.job.wording import Fault, Faults
from ptsdk.plugins import CORE, Entry
from ptsdk.specs import MethodSpec, Objective

SLOTS = {
    "model": "model-family",
    "tokenizer": "tokenizer",
    "method": "method",
    "loss": "loss",
    "adapter": "adapter",
    "quantizer": "quantizer",
    "optimizer": "optimizer",
    "schedule": "schedule",
    "strategy": "strategy",
}
"""Sections that hold one component, and its kind."""

LISTS = {"loggers": "logger", "callbacks": "callback"}
"""Sections that hold several."""

DEFAULTS: dict[str, Any] = {
    "tokenizer": f"{CORE}/auto",
    "adapter": f"{CORE}/full",
    "quantizer": None,
    "optimizer": f"{CORE}/adamw",
    "schedule": f"{CORE}/constant",
    "strategy": f"{CORE}/single",
    "loggers": [f"{CORE}/console", f"{CORE}/jsonl"],
    "callbacks": [],
    "train": {},
}
"""What is used where a job leaves the section out; the loss is the method's own default. Core's, in full:
a bare name would mean something else, or nothing, once another package provides it too."""


@dataclass(frozen=True)
class Origin:
    """Where a job came from.

    Attributes:
        text: the job file as it is.
        base: the folder that relative paths are relative to.
        entries: the component behind each path of the job (``data.train.0``).
        local_files: SHA-256 of each ``./file.py:Class`` that was loaded.
        secrets: values that came from the environment, and the variable of each.
        place: puts a fault of a key (``Problem.path``) at its line.
    """

    text: str = ""
    base: Path = field(default_factory=Path)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    local_files: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    place: Callable[[Problem], Problem] = field(default=lambda problem: problem)


class Job(Section):
    """A job file in full. Made by ``load_job`` or ``make_job``, which find the components."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    api: Literal[1] = Field(description="number of the job format")
    model: Annotated[ModelFamily, Use("model-family")] = Field(
        description="a checkpoint {path, dtype}, or {use: family, config: {...}} from scratch"
    )
    tokenizer: Annotated[TokenizerSource, Use("tokenizer")] = Field(description="text to tokens; the model's own")
    data: DataSection = Field(description="what is trained on")
    method: Annotated[Method, Use("method")] = Field(description="what is asked of the model")
    loss: Annotated[Loss, Use("loss")] = Field(description="what is minimised; by default the method's own")
    adapter: Annotated[Adapter, Use("adapter")] = Field(description="which weights train; all of them")
    quantizer: Annotated[Quantizer, Use("quantizer")] | None = Field(description="weights in fewer bits")
    optimizer: Annotated[Optimizer, Use("optimizer")] = Field(description="how weights follow gradients")
    schedule: Annotated[Schedule, Use("schedule")] = Field(description="the learning rate over the steps")
    strategy: Annotated[Strategy, Use("strategy")] = Field(description="how a run is spread over processes")
    loggers: Annotated[tuple[Annotated[Logger, Use("logger")], ...], OneOrMany()] = Field(
        description="where metrics go"
    )
    callbacks: Annotated[tuple[Annotated[Callback, Use("callback")], ...], OneOrMany()] = Field(
        description="what watches the run and may stop it"
    )
    train: TrainSection = Field(description="how long, how much at once, and what is kept")
    output_dir: Path = Field(description="folder of the run, relative to the working directory")

    @field_validator("callbacks")
    @classmethod
    def _callbacks_have_what_they_watch(
        cls, callbacks: tuple[Callback, ...], info: ValidationInfo
    ) -> tuple[Callback, ...]:
        data: DataSection | None = info.data.get("data")
        for callback in callbacks:
            if data and not data.validation and callback.needs_validation():
                name = getattr(callback, "__ptsdk_use__", None) or type(callback).__name__
                raise ValueError(f"{name} would do nothing: it needs data.validation, which is not given")
        return callbacks

    @field_validator("train")
    @classmethod
    def _batches_are_whole(cls, train: TrainSection, info: ValidationInfo) -> TrainSection:
        method: Method | None = info.data.get("method")
        try:
            if method:
                method.items_per_step(train.batch_size)
        except ValueError as error:
            raise Faults(Fault(("batch_size",), str(error))) from error
        return train

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @field_validator("output_dir", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """Empty is no folder: to a path it is the working directory."""
        if value == "":
            raise ValueError("empty; name a folder")
        return value

    @field_validator("output_dir")
    @classmethod
    def _possible(cls, value: Path) -> Path:
        """Whether there can be a folder of that name."""
        try:
            (expanded := value.expanduser()).exists()
        except (OSError, RuntimeError) as error:  # RuntimeError: ~ of nobody
            raise ValueError(f"no folder can have this name: {getattr(error, 'strerror', error)}") from error
        return expanded

    @property
    def text(self) -> str:
        """The job file as it was given."""
        return self._origin.text

    @property
    def base(self) -> Path:
        """The folder that relative paths of the job are relative to."""
        return self._origin.base

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The component behind each path: ``entries["method"].spec.objective``."""
        return self._origin.entries

    @property
    def objective(self) -> Objective:
        """What the method learns from."""
        spec = self.entries["method"].spec
        assert isinstance(spec, MethodSpec)
        return spec.objective

    @property
    def local_files(self) -> Mapping[str, str]:
        """SHA-256 of each ``./file.py:Class`` of the job."""
        return self._origin.local_files

    @property
    def secrets(self) -> Mapping[str, str]:
        """Values that came from ``${env:NAME}``, and NAME: hide them wherever the job is recorded."""
        return self._origin.secrets

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Inside, a ``UserError`` that names a key of the job and no file is given file and line."""
        try:
            yield
        except UserError as error:
            place = self._origin.place
            raise UserError(*(place(p) if p.path and not p.file else p for p in error.problems)) from error

    def resolved(self) -> dict[str, Any]:
        """The job with every default, as a job file would spell it; secrets are *not* hidden."""
        return self.model_dump(mode="json")
