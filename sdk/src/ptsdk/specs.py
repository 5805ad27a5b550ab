"""What a plugin says about a component before any of its code is imported.

A spec is plain data. ``Spec("dpo", "ptsdk_dpo.method:DPO", "Direct preference optimisation")`` is
enough; the subclasses add what the resolver must know to choose or refuse without importing.
This module imports nothing but the standard library, and a plugin's ``plugin.py`` imports nothing
but this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

API = 1
"""The number of the plugin contract. A plugin declares the one it was written for as ``PTSDK_API``."""

Objective = Literal["token", "preference", "binary", "policy"]
"""The shape of the data a method learns from: one document, a pair, a labelled one, a prompt."""

NAME = re.compile(r"^[a-z][a-z0-9_.-]*$")
TARGET = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


@dataclass(frozen=True)
class Spec:
    """One component: its name in a job, where its class lives, and what it demands.

    Args:
        name: what a job writes after ``use:``; lower case, ``[a-z][a-z0-9_.-]*``.
        target: ``package.module:Class``, imported when a job uses it.
        summary: one line for ``ptsdk list``.
        requires: what must be there besides: a PEP 508 requirement (``"bitsandbytes>=0.45"``),
            another component of the same job as ``kind:name`` (``"adapter:lora"``), or the device it trains on
            (``"device:cuda"``; one of several where there are more).
        conflicts: components this one cannot be combined with, as ``kind:name`` or a capability
            as ``kind:+capability``.
        why: the reason for ``conflicts``, told to the user: "packed weights are frozen".
        supports: free-form capabilities. `ptsdk plan` proposes components that save memory by them: an adapter
            that is ``low-rank``, a quantizer that ``packs``, an optimizer of ``small-state``, a strategy whose
            weights are ``sharded``. An optimizer of ``compiled-step`` gives the same weights, to the rounding of its
            own arithmetic, under ``train.compile: {optimizer: true}``, where its groups' ``lr`` are tensors. A loss
            that is an ``own-kernel`` has nothing that ``train.compile: {loss: true}`` could compile, which is refused.

    Raises:
        ValueError: a name or target that is not of the form above.
    """

    name: str
    target: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    supports: frozenset[str] = frozenset()
    why: str = ""

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise ValueError(f"component name {self.name!r} must match {NAME.pattern}")
        if not TARGET.match(self.target):
            raise ValueError(f"target {self.target!r} of {self.name!r} must be 'module:Class'")


@dataclass(frozen=True)
class ModelFamilySpec(Spec):
    """A model family; ``architectures`` are the names in config.json that it reads."""

    architectures: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSpec(Spec):
    """A data set format; ``objective`` is the kind of example it makes."""

    objective: Objective = "token"


@dataclass(frozen=True)
class LossSpec(Spec):
    """A loss; ``objective`` says which methods can call it (``methods`` narrows that to some)."""

    objective: Objective = "token"
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodSpec(Spec):
    """A training method.

    ``needs`` names what ``assemble`` must provide beside the policy: ``reference``, ``teacher``,
    ``rollout``. ``default_loss`` is used where the job names none: this dist's of that name, else
    core's; one of another dist is written in full, ``dist/name``.
    """

    objective: Objective = "token"
    needs: frozenset[str] = frozenset()
    default_loss: str = "cross_entropy"


@dataclass(frozen=True)
class CheckpointSourceSpec(Spec):
    """Where checkpoints come from; ``schemes`` are the URL schemes it answers to."""

    schemes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointFormatSpec(Spec):
    """How a local checkpoint is read; ``suffixes`` of the files it opens (``""``: a directory)."""

    suffixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """One seam: its singular name, the hook that fills it, its spec class and its contract."""

    name: str
    hook: str
    spec: type[Spec]
    contract: str


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("model-family", "ptsdk_model_families", ModelFamilySpec, "ptsdk.contracts.model:ModelFamily"),
        Kind("tokenizer", "ptsdk_tokenizers", Spec, "ptsdk.contracts.tokenizer:TokenizerSource"),
        Kind("dataset", "ptsdk_datasets", DatasetSpec, "ptsdk.contracts.dataset:Dataset"),
        Kind("method", "ptsdk_methods", MethodSpec, "ptsdk.contracts.method:Method"),
        Kind("loss", "ptsdk_losses", LossSpec, "ptsdk.contracts.loss:Loss"),
        Kind("adapter", "ptsdk_adapters", Spec, "ptsdk.contracts.adapter:Adapter"),
        Kind("quantizer", "ptsdk_quantizers", Spec, "ptsdk.contracts.quantizer:Quantizer"),
        Kind("optimizer", "ptsdk_optimizers", Spec, "ptsdk.contracts.optimizer:Optimizer"),
        Kind("schedule", "ptsdk_schedules", Spec, "ptsdk.contracts.schedule:Schedule"),
        Kind("strategy", "ptsdk_strategies", Spec, "ptsdk.contracts.strategy:Strategy"),
        Kind("logger", "ptsdk_loggers", Spec, "ptsdk.contracts.events:Logger"),
        Kind("callback", "ptsdk_callbacks", Spec, "ptsdk.contracts.events:Callback"),
        Kind("reward", "ptsdk_rewards", Spec, "ptsdk.contracts.reward:Reward"),
        Kind(
            "checkpoint-source",
            "ptsdk_checkpoint_sources",
            CheckpointSourceSpec,
            "ptsdk.contracts.checkpoint:CheckpointSource",
        ),
        Kind(
            "checkpoint-format",
            "ptsdk_checkpoint_formats",
            CheckpointFormatSpec,
            "ptsdk.contracts.checkpoint:CheckpointFormat",
        ),
        Kind("rollout-engine", "ptsdk_rollout_engines", Spec, "ptsdk.contracts.rollout:RolloutEngine"),
        Kind("command", "ptsdk_commands", Spec, "click:Command"),
    )
}
"""Every seam of the SDK, by its singular name."""
