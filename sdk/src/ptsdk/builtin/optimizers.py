"""torch's optimizers as components.

Weight decay reaches parameters of two or more dimensions alone: norms and biases keep their
scale, as with transformers' Trainer.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar

import torch
from pydantic import Field, model_validator
from torch import nn

from ptsdk.contracts.optimizer import Optimizer
from ptsdk.errors import Problem, UserError
from ptsdk.nn.sharded import is_sharded
from ptsdk.train.composite import Composite

FUSED = frozenset({"cpu", "cuda", "mps", "xpu"})
"""Devices that torch has fused kernels for, those of the CPU included (torch 2.4)."""

IN_A_BLOCK = re.compile(r"\.\d+\.")
"""A block is an element of a list, so its parameters have a number in their name; the
embedding, the head and the final norm have none."""

Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = tuple[Decay, Decay]
Groups = list[dict[str, Any]]

Implementation = Annotated[
    Literal["auto", "fused", "foreach", "loop"],
    Field(
        description="fused: one kernel; foreach: one call an operation for all weights; loop: one for each weight; "
        "auto: fused, or where torch has no such kernel what it would take"
    ),
]


class Kernels(TypedDict, total=False):
    """torch's arguments for an implementation."""

    fused: bool
    foreach: bool


Stepping = TypeVar("Stepping", bound=torch.optim.Optimizer)


def without_compiler(kind: type[Stepping]) -> type[Stepping]:
    """``kind``, doing the same without torch's compiler, which torch's own methods load just to tell it to leave them
    alone: above a second of every start, and 70 MB. For optimizers that nothing compiles."""
    methods = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in methods}
    return type(kind.__name__, (kind,), {**plain, "step": torch.no_grad()(inspect.unwrap(kind.step))})


PlainAdamW, PlainSGD = without_compiler(torch.optim.AdamW), without_compiler(torch.optim.SGD)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    betas: Betas = Field((0.9, 0.999), description="decay of the means of gradients and of their squares")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of matrices")
    implementation: Implementation = "auto"

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.AdamW:
        """Raises a UserError where the implementation is not to be had."""
        groups = decay_groups(parameters, self.weight_decay)
        how = implemented(self.implementation, can_fuse(parameters))
        return PlainAdamW(groups, self.lr, self.betas, self.eps, **how)


class SGD(Optimizer):
    """Stochastic gradient descent."""

    momentum: float = Field(0.0, ge=0, description="momentum")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on matrices")
    nesterov: bool = Field(False, description="Nesterov momentum; needs momentum")
    implementation: Implementation = "auto"

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum above 0")
        return self

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.SGD:
        """torch has no fused kernel for shards. Raises a UserError where the implementation is not to be had."""
        groups = decay_groups(parameters, self.weight_decay)
        sharded = any(map(is_sharded, parameters.values()))
        how = implemented(self.implementation, can_fuse(parameters) and not sharded)
        return PlainSGD(groups, self.lr, momentum=self.momentum, nesterov=self.nesterov, **how)


class Adafactor(Optimizer):
    """Factored second moments (arXiv:1804.04235): state of rows + columns instead of rows x columns.

    ``lr`` is relative to the size of each parameter, hence larger than AdamW's.
    """

    lr: float = Field(1e-2, ge=0, description="peak learning rate, relative to the RMS of a parameter")
    beta2_decay: float = Field(-0.8, le=0, description="exponent of the decay of the second moment")
    clip: float = Field(1.0, ge=1, description="RMS that an update is clipped to")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of matrices")

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Adafactor:
        """torch's own."""
        groups = decay_groups(parameters, self.weight_decay)
        return torch.optim.Adafactor(groups, self.lr, self.beta2_decay, d=self.clip)


class Muon(Optimizer):
    """Orthogonalised momentum for the matrices of blocks, AdamW for everything else.

    Keller Jordan's method (https://kellerjordan.github.io/posts/muon) with the scale of
    arXiv:2502.16982, under which both halves share one learning rate and one weight decay.
    """

    momentum: float = Field(0.95, ge=0, lt=1, description="momentum of the matrices")
    nesterov: bool = Field(True, description="Nesterov momentum")
    ns_steps: int = Field(5, ge=1, lt=100, description="Newton-Schulz iterations")
    adjust: Literal["match_rms_adamw", "original"] = Field(
        "match_rms_adamw", description="scale of an update: that of AdamW's, or sqrt(max(1, rows / columns))"
    )
    betas: Betas = Field((0.9, 0.999), description="AdamW's, for embeddings, head, norms and biases")
    eps: float = Field(1e-8, gt=0, description="AdamW's")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of matrices, under both")

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Both halves behind one optimizer."""
        matrices = {name: p for name, p in parameters.items() if p.ndim == 2 and IN_A_BLOCK.search(name)}
        rest = {name: p for name, p in parameters.items() if name not in matrices}
        parts: list[torch.optim.Optimizer] = []
        if matrices:
            parts.append(self._muon(matrices))
        if rest:
            parts.append(AdamW(lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay).build(rest))
        return Composite(parts)

    def _muon(self, matrices: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Muon(
            list(matrices.values()),
            self.lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=self.nesterov,
            ns_steps=self.ns_steps,
            adjust_lr_fn=self.adjust,
        )


def decay_groups(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> Groups:
    """Parameters of two or more dimensions with ``weight_decay``, the others without."""
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    others = [p for p in parameters.values() if p.ndim < 2]
    groups: Groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def implemented(wish: Implementation, fusable: bool) -> Kernels:
    """torch's arguments for an implementation.

    Args:
        fusable: whether torch has a fused kernel for the weights.

    Raises:
        UserError: it has none, and one is wished for.
    """
    if wish == "auto":
        return {"fused": fusable}
    if wish == "fused" and not fusable:
        message = "torch has no fused kernel for these weights: for their device, or for shards of them"
        raise UserError(Problem(message, "leave it out", path="optimizer.implementation"))
    return {"fused": wish == "fused", "foreach": wish == "foreach"}


def can_fuse(parameters: Mapping[str, nn.Parameter]) -> bool:
    """Whether one kernel can update them all; else torch loops over them, by foreach on a GPU."""
    return all(p.device.type in FUSED and p.is_floating_point() for p in parameters.values())
