"""What ptsdk-fsdp2 contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_strategies() -> list[Spec]:
    """Parameters, gradients and optimizer state in shards."""
    return [
        Spec(
            "fsdp2",
            "ptsdk_fsdp2.strategy:Fsdp2",
            "parameters, gradients and optimizer state sharded over processes (torch's fully_shard)",
            conflicts=("optimizer:adafactor",),
            why="torch's Adafactor does not compute on shards",
            supports=frozenset({"sharded"}),
        )
    ]
