"""Combinations that cannot work, told from specs alone, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ptsdk.job.sections import TrainSection
from ptsdk.job.source import Keys, dotted
from ptsdk.job.wording import Fault
from ptsdk.plugins import Entry
from ptsdk.registry import Registry, a, install, is_component, missing_requirements
from ptsdk.specs import DatasetSpec, LossSpec, MethodSpec

Entries = Mapping[Keys, Entry]

_MADE = {
    "token": "documents",
    "preference": "pairs of a chosen and a rejected completion",
    "binary": "completions labelled good or bad",
    "policy": "prompts",
}


def impossible(
    entries: Entries,
    train: TrainSection | None,
    registry: Registry,
    *,
    packing: bool,
    validation: bool,
    streaming: bool,
) -> list[Fault]:
    """Everything that two parts of a job disagree about.

    Args:
        entries: the component at each place of the job.
        train: None when it is not sound by itself.
        registry: what is installed, for what a component requires beside it.
        packing: whether the data is packed.
        validation: whether there is validation data.
        streaming: whether rows become examples when they are read.
    """
    faults = [*_objectives(entries), *_demands(entries, registry)]
    if packing:
        faults += _packing(entries)
    if train is not None:
        faults += [*_batches(train), *_memory(train), *_compiling(train, entries, registry)]
        if not validation:
            faults += _validation(train)
        if streaming and train.steps is None:
            faults += [_unknown_length()]
    return faults


def _objectives(entries: Entries) -> Iterator[Fault]:
    """Data, method and loss must speak of the same kind of example."""
    method = entries.get(("method",))
    if method is None or not isinstance(method.spec, MethodSpec):
        return
    wanted = method.spec.objective
    for keys, entry in entries.items():
        spec = entry.spec
        if keys[0] == "data" and isinstance(spec, DatasetSpec) and spec.objective != wanted:
            yield Fault(
                keys,
                f"data set {spec.name} makes {_MADE[spec.objective]} ({spec.objective}), "
                f"but method {method.spec.name} learns from {_MADE[wanted]} ({wanted})",
                "use a data set or a method of the other's objective: `ptsdk list dataset`, `ptsdk list method`",
            )
    loss = entries.get(("loss",))
    if loss is not None and isinstance(loss.spec, LossSpec):
        yield from _loss(loss.spec, method)


def _loss(loss: LossSpec, method: Entry) -> Iterator[Fault]:
    spec = method.spec
    assert isinstance(spec, MethodSpec)
    if loss.objective != spec.objective:
        yield Fault(
            ("loss",),
            f"loss {loss.name} is for methods of the objective {loss.objective}, "
            f"but method {spec.name} has the objective {spec.objective}",
            f"leave `loss` out to use the method's own, {spec.default_loss}",
        )
    elif loss.methods and not {spec.name, method.qualified} & set(loss.methods):
        yield Fault(
            ("loss",),
            f"loss {loss.name} works with {', '.join(loss.methods)}, not with method {spec.name}",
            f"leave `loss` out to use the method's own, {spec.default_loss}",
        )


def _demands(entries: Entries, registry: Registry) -> Iterator[Fault]:
    """What a spec requires and what it cannot be combined with."""
    for keys, entry in entries.items():
        me = f"{entry.kind} {entry.spec.name}"
        for requirement in missing_requirements(entry.spec):
            how = install(requirement, entry.dist)
            yield Fault(keys, f"{me} needs {requirement}, which is not installed", how)
        for demand in filter(is_component, entry.spec.requires):
            if not any(other.fulfils(demand) for other in entries.values()):
                yield _lacking(keys, me, demand, registry)
        for refused in entry.spec.conflicts:
            for where, other in entries.items():
                if where != keys and other.fulfils(refused):
                    yield Fault(
                        keys,
                        f"{me} cannot be combined with {other.kind} {other.spec.name} (at {dotted(where)})"
                        + (f": {entry.spec.why}" if entry.spec.why else ""),
                        "remove one of the two",
                    )


def _lacking(keys: Keys, me: str, demand: str, registry: Registry) -> Fault:
    """A component that has to be in the job: the ones to choose from, or where to get one."""
    kind, _, name = demand.partition(":")
    found = registry.fulfilling(demand)
    wanted = f"{a(kind)} that supports {name[1:]}" if name.startswith("+") else f"{kind} {name}"
    message = f"{me} needs {wanted} in the same job"
    if found:
        names = [entry.qualified if "/" in name else entry.spec.name for entry in found]
        return Fault(keys, message, f"set {' or '.join(f'`{_slot(kind)}: {one}`' for one in names)}")
    absent = registry.absent(demand)
    return Fault(keys, f"{message}, and {absent.message}", absent.hint)


def _slot(kind: str) -> str:
    return {"model-family": "model", "dataset": "data.train", "logger": "loggers", "callback": "callbacks"}.get(
        kind, kind
    )


def _packing(entries: Entries) -> Iterator[Fault]:
    method = entries.get(("method",))
    spec = method.spec if method is not None else None
    if isinstance(spec, MethodSpec) and spec.objective != "token":
        yield Fault(
            ("data", "packing"),
            f"packing joins documents, but method {spec.name} compares or samples whole examples ({spec.objective})",
            "set data.packing=false: batches hold no padding without it either",
        )


def _unknown_length() -> Fault:
    message = "how many sequences streamed data makes is known only when it has been read, so epochs have no length"
    return Fault(("train", "steps"), message, "set train.steps in place of epochs")


def _batches(train: TrainSection) -> Iterator[Fault]:
    batch, micro = train.batch_size, train.micro_batch_size
    if micro is not None and batch % micro:
        divisors = ", ".join(str(n) for n in range(1, min(batch, 64) + 1) if batch % n == 0)
        message = f"micro_batch_size {micro} does not divide batch_size {batch}"
        yield Fault(("train", "micro_batch_size"), message, f"choose one of {divisors}")


def _memory(train: TrainSection) -> Iterator[Fault]:
    place: Keys = ("train", "optimizer_in_backward")
    if train.optimizer_in_backward and train.micro_batch_size != train.batch_size:
        size = train.micro_batch_size
        several = f"{train.batch_size // size} micro-batches" if size else "micro-batches of `micro_batch_tokens`"
        yield Fault(
            place,
            f"the optimizer cannot step in the backward while gradients accumulate over {several}",
            f"set train.micro_batch_size={train.batch_size}"
            f"{'' if size else ' in place of it'}, or train.optimizer_in_backward=false",
        )
    if train.optimizer_in_backward and train.clip_grad_norm is not None:
        yield Fault(
            place,
            f"clipping to {train.clip_grad_norm} needs all gradients at once; the optimizer in the backward frees them",
            "set train.clip_grad_norm=null, or train.optimizer_in_backward=false",
        )
    if train.optimizer_in_backward and train.on_nonfinite == "skip":
        yield Fault(
            ("train", "on_nonfinite"),
            "a step cannot be skipped when the optimizer has stepped in the backward",
            "set train.on_nonfinite=stop, or train.optimizer_in_backward=false",
        )
    if train.activation_checkpointing_every > 1 and train.activation_checkpointing == "none":
        yield Fault(
            ("train", "activation_checkpointing_every"),
            "it says which blocks recompute, but activation_checkpointing is none",
            "set train.activation_checkpointing=full, or leave it out",
        )
    if train.activation_offloading and train.activation_checkpointing == "none":
        yield Fault(
            ("train", "activation_offloading"),
            "offloading moves what activation checkpointing keeps, but activation_checkpointing is none",
            "set train.activation_checkpointing=full",
        )


def _compiling(train: TrainSection, entries: Entries, registry: Registry) -> Iterator[Fault]:
    loss, optimizer = entries.get(("loss",)), entries.get(("optimizer",))
    if train.compile.loss and loss and "own-kernel" in loss.spec.supports:
        message = f"loss {loss.spec.name} is a kernel of its own, so that nothing of it would be compiled"
        yield Fault(("train", "compile", "loss"), message, "set train.compile.loss=false")
    if train.compile.optimizer and optimizer:
        yield from _compiled_step(train, optimizer, registry)


def _compiled_step(train: TrainSection, optimizer: Entry, registry: Registry) -> Iterator[Fault]:
    place: Keys = ("train", "compile", "optimizer")
    if train.optimizer_in_backward:
        message = "an optimizer in the backward updates each weight by itself: as many programs as there are weights"
        yield Fault(place, message, "set train.compile.optimizer=false, or train.optimizer_in_backward=false")
    if "compiled-step" not in optimizer.spec.supports:
        can = ", ".join(entry.spec.name for entry in registry.fulfilling("optimizer:+compiled-step"))
        yield Fault(
            place,
            f"optimizer {optimizer.spec.name} is not made to be compiled: its update is one kernel as it is, "
            "or torch.compile cannot follow it",
            f"set train.compile.optimizer=false; it pays for {can or 'none that is installed'}",
        )


def _validation(train: TrainSection) -> Iterator[Fault]:
    if train.validate_every is not None:
        message = f"validate_every is {train.validate_every}, but there is no validation data"
        yield Fault(("train", "validate_every"), message, "add data.validation, or remove train.validate_every")
