"""What ptsdk-templates contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_commands() -> list[Spec]:
    """One verb."""
    return [Spec("new-plugin", "ptsdk_templates.command:new_plugin", "A package of your own, tested from the start")]
