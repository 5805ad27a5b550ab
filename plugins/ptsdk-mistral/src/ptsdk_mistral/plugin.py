"""What ptsdk-mistral contributes."""

from __future__ import annotations

from ptsdk.specs import ModelFamilySpec

PTSDK_API = 1


def ptsdk_model_families() -> list[ModelFamilySpec]:
    """The dense language models of Mistral AI in transformers' first architecture."""
    return [
        ModelFamilySpec(
            "mistral",
            "ptsdk_mistral.model:Mistral",
            "Mistral 7B, Nemo, Small and Large, and models of the same architecture",
            architectures=("MistralForCausalLM",),
        )
    ]
