"""What ptsdk-qat contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_quantizers() -> list[Spec]:
    """Quantization-aware training."""
    summary = "Train with quantised weights simulated, to be quantised after (arXiv:1712.05877)"
    return [Spec("qat", "ptsdk_qat.quantizer:Qat", summary)]


def ptsdk_commands() -> list[Spec]:
    """One verb."""
    return [Spec("quantize", "ptsdk_qat.command:quantize", "Write a model in 4 or 8 bits, which transformers loads")]
