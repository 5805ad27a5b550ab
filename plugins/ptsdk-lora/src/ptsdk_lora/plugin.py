"""What ptsdk-lora contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_adapters() -> list[Spec]:
    """The low-rank adapters. ``peft``: reads what an adapter_config.json of PEFT describes; ``low-rank``: trains
    few weights beside frozen ones."""
    module = "ptsdk_lora.adapter"
    able = frozenset({"peft", "low-rank"})
    return [
        Spec("lora", f"{module}:Lora", "Low-rank adaptation (arXiv:2106.09685)", supports=able),
        Spec("rslora", f"{module}:RsLora", "LoRA scaled by 1/sqrt(rank) (arXiv:2312.03732)", supports=able),
        Spec(
            "dora", f"{module}:Dora", "LoRA of the direction, a magnitude beside it (arXiv:2402.09353)", supports=able
        ),
    ]
