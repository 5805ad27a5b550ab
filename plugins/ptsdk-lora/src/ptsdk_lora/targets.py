"""Which linear layers a job's ``targets`` name, by PEFT's rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from torch import nn

from ptsdk.errors import Problem, UserError
from ptsdk.nn.causal_lm import CausalLM, block_linears

ALL_LINEAR = "all-linear"
Targets = str | tuple[str, ...]


def find_targets(model: CausalLM, targets: Targets) -> dict[str, nn.Linear]:
    """The layers to adapt, by name in model order.

    Args:
        model: only linear layers of its blocks are looked at, never the embedding or the head.
        targets: ``all-linear``; or a regular expression that a name matches as a whole; or names
            of layers, each in full or from some dot on.

    Raises:
        UserError: a target, or all of them, match nothing.
    """
    linears = block_linears(model)
    if targets == ALL_LINEAR:
        found = set(linears)
    elif isinstance(targets, str):
        found = {name for name in linears if re.fullmatch(targets, name)}
    else:
        found = {name for name in linears for target in targets if ends_with(name, target)}
    missing = _missing(targets, found)
    if missing:
        raise UserError(*(_problem(target, targets, linears) for target in missing))
    return {name: module for name, module in linears.items() if name in found}


def ends_with(name: str, target: str) -> bool:
    """Whether ``target`` is ``name`` or all of it after some dot."""
    return name == target or name.endswith(f".{target}")


def suffixes(targets: Targets, adapted: Iterable[str]) -> list[str]:
    """The list that makes PEFT adapt the same layers of the same model.

    Names given in a list are kept; all-linear becomes the last parts of names; what a regular
    expression chose is spelled out, for last parts could mean more than it did.
    """
    if isinstance(targets, tuple):
        return sorted(set(targets))
    if targets == ALL_LINEAR:
        return sorted({name.rpartition(".")[2] for name in adapted})
    return sorted(adapted)


def _missing(targets: Targets, found: set[str]) -> list[str]:
    if isinstance(targets, str):
        return [] if found else [targets]
    return [target for target in targets if not any(ends_with(name, target) for name in found)]


def _problem(target: str, targets: Targets, linears: Iterable[str]) -> Problem:
    leaves = sorted({name.rpartition(".")[2] for name in linears})
    close = get_close_matches(target.rpartition(".")[2], leaves, n=1)
    hints = [f"did you mean {close[0]}?"] if close else []
    if target == targets:
        hints.append("a string is a regular expression for whole names; for endings write a list, such as [q_proj]")
    hints.append(f"the blocks have {', '.join(leaves)}" if leaves else "the blocks have no linear layers")
    return Problem(f"{target!r} matches no linear layer of the blocks", "; ".join(hints), path="adapter.targets")
