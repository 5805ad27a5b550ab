"""A job file, its overrides and its environment to a frozen ``Job``, or to all that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ptsdk.checkpoint.reproduction import locked_job, read_lock
from ptsdk.contracts.component import Component
from ptsdk.contracts.tokenizer import TokenizerSource
from ptsdk.errors import Problem, PtsdkError, UserError
from ptsdk.job.capabilities import impossible
from ptsdk.job.environment import substitute
from ptsdk.job.fitting import misfits
from ptsdk.job.job import DEFAULTS, LISTS, SLOTS, Job, Origin
from ptsdk.job.overrides import apply_overrides
from ptsdk.job.resolve import Resolver, default_loss
from ptsdk.job.sections import DataSection, TrainSection, one_or_many
from ptsdk.job.source import OVERRIDE, Keys, Source, dotted, read_source
from ptsdk.job.wording import Fault, Faults, faults_of, misplaced_bools
from ptsdk.plugins import CORE, Entry
from ptsdk.registry import Registry

DATA = ("packing", "streaming", "validation")
"""Keys of ``data`` that decide what is possible: whether they are on, or there."""
TOGETHER = {"batch_size", "micro_batch_size", "micro_batch_tokens", "clip_grad_norm", "optimizer_in_backward"}
"""Keys of ``train`` that are judged together: when one is faulty, nothing is said of the others."""


def load_job(path: Path, overrides: Sequence[str], registry: Registry) -> Job:
    """The job of a file.

    Args:
        path: a YAML file; relative paths in it are relative to its folder.
        overrides: ``key.path=value`` or ``~key.path``, applied in order.
        registry: what is installed.

    Raises:
        UserError: every fault, each with file, line, path, message and hint. A file that is not
            YAML is told first, alone; everything else comes together.
    """
    source, problems = apply_overrides(read_source(path), overrides)
    return _Loading(source, path.parent, registry).job([*source.problems, *problems])


def load_locked(path: Path, overrides: Sequence[str], registry: Registry) -> Job:
    """The job that a lock.json records; its paths are relative to where the job file lay.

    Raises:
        UserError: it is no lock, or one that hides a secret of its job; or as ``load_job``.
    """
    values, base = locked_job(path, read_lock(path))
    source, problems = apply_overrides(Source(str(path), "", values), overrides)
    return _Loading(source, base, registry).job(problems)


def make_job(values: Mapping[str, Any], registry: Registry, base: Path | None = None) -> Job:
    """The same from Python: ``values`` as in a job file, with instances wherever a component goes.

    Args:
        base: the folder of relative paths; by default the working directory.

    Raises:
        UserError: as ``load_job``, with ``job`` as the file.
    """
    return _Loading(Source("job", "", dict(values)), base or Path(), registry).job([])


class _Loading:
    def __init__(self, source: Source, base: Path, registry: Registry) -> None:
        self.source, self.base = source, base
        self.resolver = Resolver(registry, base)
        values, self.secrets, environment = substitute(source.values, os.environ)
        self.faults = [Fault(*fault) for fault in environment]
        self.unset = {fault.keys: fault for fault in self.faults}
        self.values = _complete(values, self.resolver)

    def job(self, problems: list[Problem]) -> Job:
        """The job, unless ``problems`` or faults of its own forbid it."""
        job = self._validate()
        told = {fault.keys for fault in self.faults}
        self.faults += [fault for fault in self._misplaced() if fault.keys not in told]
        entries = _components(job, self.resolver) if job else _named(self.values, self.resolver)
        written = {_written(keys, self.values): entry for keys, entry in entries.items()}
        data = {key: bool(getattr(job.data, key)) for key in DATA} if job else self._data()
        train = job.train if job else self._train()
        self.faults += self._tokenizer()
        self.faults += impossible(written, train, self.resolver.registry, **data)
        if job:
            named = {dotted(keys): entry for keys, entry in entries.items()}
            job._origin = Origin("", self.base, named, self.resolver.local_files, self.secrets, self._place)
        if job and not self.faults:
            self.faults += _uncallable(job) or misfits(job, self.resolver.config_of(job.model))
        problems = [*problems, *self._problems()]
        if problems or job is None:
            raise UserError(*sorted(problems, key=lambda p: (p.file == OVERRIDE, p.line)))
        text = self.source.text or yaml.safe_dump(job.resolved(), sort_keys=False)
        job._origin = replace(job._origin, text=text)
        return job

    def _validate(self) -> Job | None:
        try:
            return Job.model_validate(self.values, context={"resolve": self.resolver})
        except ValidationError as error:
            self.faults += faults_of(error, Job, self.values)
            return None

    def _misplaced(self) -> Iterator[Fault]:
        sections: dict[str, type[BaseModel]] = {"data": DataSection, "train": TrainSection}
        for name, section in sections.items():
            values = self.values.get(name)
            if isinstance(values, Mapping):
                yield from (fault.inside((name,)) for fault in misplaced_bools(section, values))

    def _data(self) -> dict[str, bool]:
        """``DATA`` of a job that is not sound."""
        data = self.values.get("data")
        given = data if isinstance(data, Mapping) else {}
        return {key: given.get(key) is True for key in DATA} | {"validation": bool(given.get("validation"))}

    def _tokenizer(self) -> Iterator[Fault]:
        """A model from scratch brings no tokenizer; told whatever else is wrong with the job."""
        model, tokenizer = self.values.get("model"), self.values["tokenizer"]
        config, path = _option(model, "config"), _option(model, "path")
        misspelt = "tokenizer" not in self.source.values and not set(self.values) <= set(Job.model_fields)
        if config is None or path is not None or misspelt:
            return
        try:
            found = tokenizer if isinstance(tokenizer, Component) else self.resolver("tokenizer", tokenizer)
        except Faults:
            return  # told by _validate
        if isinstance(found, TokenizerSource) and found.needs_model:
            hint = "set tokenizer.path to a folder with a tokenizer.json, or `tokenizer: {use: bytes}`"
            yield Fault(("tokenizer",), "a model from scratch brings no tokenizer", hint)

    def _train(self) -> TrainSection | None:
        """The train section, of a faulty one the keys that are sound by themselves."""
        given = self.values["train"]
        if not isinstance(given, Mapping):
            return None
        wrong = {fault.keys[1] for fault in self.faults if fault.keys[:1] == ("train",) and len(fault.keys) > 1}
        if wrong & TOGETHER:
            wrong |= TOGETHER
        try:
            return TrainSection.model_validate({key: value for key, value in given.items() if key not in wrong})
        except ValidationError:
            return None  # told by _validate

    def _place(self, problem: Problem) -> Problem:
        keys = tuple(int(part) if part.isdecimal() else part for part in problem.path.split("."))
        return self.source.problem(_written(keys, self.values), problem.message, problem.hint)

    def _problems(self) -> Iterator[Problem]:
        """Every fault with its place, without what the environment keeps secret. What an unset
        variable entails, or what the file says unreadably, is not told."""
        for fault in dict.fromkeys(self.faults):
            if fault.keys in self.unset and fault not in self.unset.values():
                continue
            if any(fault.keys[:length] in self.source.unreadable for length in range(len(fault.keys) + 1)):
                continue
            problem = self.source.problem(fault.keys, fault.message, fault.hint)
            for secret, name in self.secrets.items():
                shown = f"${{env:{name}}}"
                message, hint = problem.message.replace(secret, shown), problem.hint.replace(secret, shown)
                problem = replace(problem, message=message, hint=hint)
            yield problem


def _complete(values: Mapping[str, Any], resolver: Resolver) -> dict[str, Any]:
    """``values`` with the sections that are left out. Options without ``use`` are those of the
    section's default component."""
    defaults = {**DEFAULTS, "loss": _default_loss(values.get("method"), resolver)}
    completed = dict(values)
    for name, default in defaults.items():
        given = values.get(name)
        if given is None:
            completed[name] = default
        elif name in SLOTS and isinstance(default, str) and isinstance(given, Mapping) and "use" not in given:
            completed[name] = {"use": default, **given}
    return completed


def _default_loss(method: object, resolver: Resolver) -> str:
    """The name of the method's own loss."""
    try:
        entry = resolver.entry("method", method)
    except (PtsdkError, Faults):
        return f"{CORE}/cross_entropy"  # the method is refused, so no job comes of it
    return default_loss(entry, resolver.registry)


def _named(values: Mapping[str, Any], resolver: Resolver) -> dict[Keys, Entry]:
    """The components that can be told from their names, of a job that is not sound."""
    found: dict[Keys, Entry] = {}
    for keys, kind, value in _slots(values):
        try:
            found[keys] = resolver.entry(kind, value)
        except (PtsdkError, Faults):
            continue  # told by the validation of the job
    return found


def _slots(values: Mapping[str, Any]) -> Iterator[tuple[Keys, str, object]]:
    for name, kind in SLOTS.items():
        if values.get(name) is not None:
            yield (name,), kind, values[name]
    for name, kind in LISTS.items():
        yield from (((name, i), kind, value) for i, value in enumerate(one_or_many(values.get(name))))
    data = values.get("data")
    for part in ("train", "validation") if isinstance(data, Mapping) else ():
        assert isinstance(data, Mapping)
        many = one_or_many(data.get(part))
        yield from ((("data", part, i), "dataset", value) for i, value in enumerate(many))


def _components(job: Job, resolver: Resolver) -> dict[Keys, Entry]:
    """Every component of a sound job, nested ones too."""
    return {keys: resolver.entry_of(component) for keys, component in _walk(job, ())}


def _walk(value: object, keys: Keys) -> Iterator[tuple[Keys, Component]]:
    if isinstance(value, Component):
        yield keys, value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name), (*keys, name))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _walk(item, (*keys, i))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, (*keys, key))


def _uncallable(job: Job) -> list[Fault]:
    """A loss of the method's objective that still is not what the method calls."""
    if isinstance(job.loss, job.method.loss_type):
        return []
    called, wanted = type(job.loss).__name__, job.method.loss_type.__name__
    message = f"method {type(job.method).__name__} calls a {wanted}, which the loss {called} is not"
    return [Fault(("loss",), message, "leave `loss` out to use the method's own")]


def _option(component: object, name: str) -> object:
    """An option of a component, written or live; None where it is not given."""
    return component.get(name) if isinstance(component, Mapping) else getattr(component, name, None)


def _written(keys: Keys, values: object) -> Keys:
    """``keys`` without the index of a list that was given as its one item alone."""
    written: Keys = ()
    here: Any = values
    for key in keys:
        if isinstance(key, int) and not isinstance(here, (list, tuple)):
            continue
        written = (*written, key)
        here = here[key] if _holds(here, key) else None
    return written


def _holds(here: object, key: str | int) -> bool:
    if isinstance(here, Mapping):
        return key in here
    return isinstance(here, (list, tuple)) and isinstance(key, int) and key < len(here)
