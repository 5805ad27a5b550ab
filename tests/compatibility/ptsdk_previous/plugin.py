"""What ptsdk-previous contributes."""

from ptsdk.specs import LossSpec, Spec

PTSDK_API = 0


def ptsdk_losses():
    """A loss."""
    return [LossSpec("doubled", "ptsdk_previous.loss:Doubled", "Twice the cross-entropy")]


def ptsdk_loggers():
    """A logger."""
    return [Spec("counted", "ptsdk_previous.logger:Counted", "A file that says how many steps there were")]
