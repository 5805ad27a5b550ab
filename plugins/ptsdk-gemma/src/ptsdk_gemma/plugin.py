"""What ptsdk-gemma contributes."""

from __future__ import annotations

from ptsdk.specs import ModelFamilySpec

PTSDK_API = 1


def ptsdk_model_families() -> list[ModelFamilySpec]:
    """Gemma, the first and the third, text only."""
    return [
        ModelFamilySpec(
            "gemma",
            "ptsdk_gemma.first:Gemma",
            "Gemma, the first (2B, 7B, CodeGemma), and models of the same architecture",
            architectures=("GemmaForCausalLM",),
        ),
        ModelFamilySpec(
            "gemma3",
            "ptsdk_gemma.model:Gemma3",
            "Gemma 3, text only (270M, 1B, and the text model of the larger ones)",
            architectures=("Gemma3ForCausalLM",),
        ),
    ]
