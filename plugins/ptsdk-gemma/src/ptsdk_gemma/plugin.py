"""What ptsdk-gemma contributes."""

from __future__ import annotations

from ptsdk.specs import ModelFamilySpec

PTSDK_API = 1


def ptsdk_model_families() -> list[ModelFamilySpec]:
    """Gemma 3, text only."""
    return [
        ModelFamilySpec(
            "gemma3",
            "ptsdk_gemma.model:Gemma3",
            "Gemma 3, text only (270M, 1B, and the text model of the larger ones)",
            architectures=("Gemma3ForCausalLM",),
        )
    ]
