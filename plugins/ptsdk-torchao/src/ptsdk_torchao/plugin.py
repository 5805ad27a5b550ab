"""What ptsdk-torchao contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_quantizers() -> list[Spec]:
    """Weight-only: a frozen base in fewer bits, under an adapter."""
    kinds = (
        ("nf4", "NF4", "Frozen linear layers in 4-bit NormalFloat: QLoRA (arXiv:2305.14314)"),
        ("int8", "Int8", "Frozen linear layers in 8-bit integers, one scale a row"),
        ("int4", "Int4", "Frozen linear layers in 4-bit integers, one scale a group"),
    )
    return [
        Spec(
            name,
            f"ptsdk_torchao.quantizers:{kind}",
            summary,
            conflicts=("adapter:+full",),
            why="packed weights are frozen, and full training changes every weight; train an adapter (QLoRA)",
            supports=frozenset({"packs"}),
        )
        for name, kind, summary in kinds
    ]


def ptsdk_optimizers() -> list[Spec]:
    """AdamW with its state in fewer bits."""
    module, small = "ptsdk_torchao.optimizers", frozenset({"small-state"})
    return [
        Spec("adamw-8bit", f"{module}:AdamW8bit", "AdamW with 8-bit state (arXiv:2110.02861)", supports=small),
        Spec("adamw-4bit", f"{module}:AdamW4bit", "AdamW with 4-bit state (arXiv:2309.01507)", supports=small),
    ]
