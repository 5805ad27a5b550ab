"""What ptsdk-wandb contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_loggers() -> list[Spec]:
    """One logger."""
    return [Spec("wandb", "ptsdk_wandb.logger:Wandb", "Weights & Biases, online or offline")]
