"""What ptsdk-liger contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import LossSpec

PTSDK_API = 1


def ptsdk_losses() -> list[LossSpec]:
    """A loss."""
    return [
        LossSpec(
            "liger_cross_entropy",
            "ptsdk_liger.loss:LigerCrossEntropy",
            "Cross-entropy by Liger Kernel's fused linear kernel (arXiv:2410.10989); on CUDA",
            requires=("liger-kernel>=0.6", "device:cuda"),
            supports=frozenset({"own-kernel"}),
            objective="token",
        )
    ]
