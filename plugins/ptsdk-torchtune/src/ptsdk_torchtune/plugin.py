"""What ptsdk-torchtune contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_commands() -> list[Spec]:
    """One verb."""
    return [Spec("migrate", "ptsdk_torchtune.command:migrate", "A job made of a config of torchtune")]
