"""``train.compile``: what of a run torch.compile turns into programs, and how many it has made.

A program holds for every length and number of documents, and for all blocks that are alike: what differs
between batches comes in as sizes, what differs between blocks as weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ptsdk.errors import Problem, UserError
from ptsdk.job.job import Job
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.train.composite import Composite

Compiler = str | Callable[..., Any]
"""A backend of torch.compile."""


def compile_blocks(model: CausalLM, backend: Compiler = "inductor") -> None:
    """Compile the forward of each block, activation checkpointing included.

    Hooks stay outside, so that those of a strategy (gathering, giving up) run as they are.
    """
    for block in model.layers:
        block.forward = torch.compile(block.forward, dynamic=True, backend=backend)


def compile_loss(model: CausalLM) -> None:
    """Compile what losses do to logits between matrix products, of all that is projected by the head of ``model``."""
    head = model.head  # in a variable: the attribute is what is replaced
    setattr(model, "head", lambda: replace(head(), compiled=True))  # noqa: B010


def compile_step(optimizer: torch.optim.Optimizer) -> None:
    """Compile the update of all parameters at once, except what a fused kernel does as it is.

    The learning rate becomes a tensor, which ``set_learning_rate`` fills: a number is part of a program.

    Args:
        optimizer: of a component that supports ``compiled-step``.
    """
    for group in optimizer.param_groups:
        if not group.get("fused"):
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float64)
    for part in optimizer.parts if isinstance(optimizer, Composite) else [optimizer]:
        if not any(group.get("fused") for group in part.param_groups):
            setattr(part, "step", torch.compile(part.step))  # noqa: B010


def refuse_compiling(job: Job, device: torch.device) -> None:
    """Raise a UserError where compiled code would be C++, and nothing here compiles that."""
    if device.type != "cpu" or not job.train.compile:
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        message = "torch.compile writes C++ for a CPU, and there is no compiler for it"
        raise UserError(Problem(message, "install g++, or leave it out", path="train.compile")) from error


class Graphs:
    """Counts what torch.compile has made since this was."""

    def __init__(self) -> None:
        self._before, self.made = _unique_graphs(), 0

    def count(self) -> int:
        """How many since the last call; ``made`` is how many in all."""
        made = _unique_graphs() - self._before
        new, self.made = made - self.made, made
        return new


def _unique_graphs() -> int:
    from torch._dynamo.utils import counters  # seconds to import, for those alone who compile

    stats: Any = counters["stats"]
    return int(stats["unique_graphs"])
