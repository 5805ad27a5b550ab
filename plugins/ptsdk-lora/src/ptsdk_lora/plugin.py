"""What ptsdk-lora contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_adapters() -> list[Spec]:
    """The low-rank adapters. ``peft``: reads what an adapter_config.json of PEFT describes."""
    module = "ptsdk_lora.adapter"
    peft = frozenset({"peft"})
    return [
        Spec("lora", f"{module}:Lora", "Low-rank adaptation (arXiv:2106.09685)", supports=peft),
        Spec("rslora", f"{module}:RsLora", "LoRA scaled by 1/sqrt(rank) (arXiv:2312.03732)", supports=peft),
        Spec(
            "dora", f"{module}:Dora", "LoRA of the direction, a magnitude beside it (arXiv:2402.09353)", supports=peft
        ),
    ]
