"""What ptsdk-mine contributes."""

from ptsdk.specs import LossSpec

PTSDK_API = 1


def ptsdk_losses() -> list[LossSpec]:
    """One that needs another package."""
    return [LossSpec("paired", "ptsdk_mine.loss:Paired", "As ptsdk-other has it", requires=("ptsdk-other>=2",))]
