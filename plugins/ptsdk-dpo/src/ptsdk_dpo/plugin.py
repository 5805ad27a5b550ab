"""What ptsdk-dpo contributes."""

from __future__ import annotations

from ptsdk.specs import LossSpec, MethodSpec

PTSDK_API = 1


def ptsdk_methods() -> list[MethodSpec]:
    """Learning from pairs."""
    return [
        MethodSpec(
            "dpo",
            "ptsdk_dpo.method:DPO",
            "Direct preference optimisation (arXiv:2305.18290)",
            objective="preference",
            needs=frozenset({"reference"}),
            default_loss="sigmoid",
        )
    ]


def ptsdk_losses() -> list[LossSpec]:
    """Losses on pairs, for any method that compares two completions."""
    module = "ptsdk_dpo.losses"
    return [
        LossSpec("sigmoid", f"{module}:Sigmoid", "DPO's own (arXiv:2305.18290)", objective="preference"),
        LossSpec("hinge", f"{module}:Hinge", "A margin on the rewards (arXiv:2305.10425)", objective="preference"),
        LossSpec("ipo", f"{module}:IPO", "A target for the difference (arXiv:2310.12036)", objective="preference"),
        LossSpec("simpo", f"{module}:SimPO", "Without a reference (arXiv:2405.14734)", objective="preference"),
    ]
