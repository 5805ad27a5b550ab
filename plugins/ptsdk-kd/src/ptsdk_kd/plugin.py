"""What ptsdk-kd contributes."""

from __future__ import annotations

from ptsdk.specs import LossSpec, MethodSpec

PTSDK_API = 1


def ptsdk_methods() -> list[MethodSpec]:
    """Learning from another model."""
    return [
        MethodSpec(
            "kd",
            "ptsdk_kd.method:KD",
            "Knowledge distillation from a teacher, beside cross-entropy (arXiv:1503.02531)",
            objective="token",
            needs=frozenset({"teacher"}),
            default_loss="forward_kl",
        )
    ]


def ptsdk_losses() -> list[LossSpec]:
    """Divergences of a student's next-token distribution from a teacher's."""
    return [
        LossSpec("forward_kl", "ptsdk_kd.losses:ForwardKL", "KL(teacher || student)", methods=("kd",)),
        LossSpec("reverse_kl", "ptsdk_kd.losses:ReverseKL", "KL(student || teacher)", methods=("kd",)),
        LossSpec("jsd", "ptsdk_kd.losses:JSD", "Generalised Jensen-Shannon (arXiv:2306.13649)", methods=("kd",)),
    ]
