"""Whether all processes of a run are about to do the same.

Each has discovered, resolved and read by itself. What they do not agree about must be said before
they exchange anything else: a process that saves or adapts where another does not waits for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptsdk.checkpoint.lock import process_differences
from ptsdk.contracts.strategy import Strategy
from ptsdk.errors import Problem, UserError


def refuse_disagreement(strategy: Strategy, mine: Mapping[str, Any]) -> None:
    """Compare ``mine``, a lock or a part of one, over the processes; called by all.

    Raises:
        UserError: they differ; on every process, with what differs and where.
    """
    locks = strategy.collect({key: value for key, value in mine.items() if key != "environment"})
    differences = [
        Problem(line) for rank, other in enumerate(locks) for line in process_differences(locks[0], other, rank)
    ]
    if differences:
        hint = "install the same packages everywhere, and start all with one job file"
        raise UserError(*differences, Problem("the processes do not run the same job", hint))
