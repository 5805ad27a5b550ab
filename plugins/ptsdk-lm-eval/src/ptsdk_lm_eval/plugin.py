"""What ptsdk-lm-eval contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_commands() -> list[Spec]:
    """One verb."""
    summary = "Measure a model on tasks of lm-evaluation-harness."
    return [Spec("eval", "ptsdk_lm_eval.command:evaluate", summary)]
