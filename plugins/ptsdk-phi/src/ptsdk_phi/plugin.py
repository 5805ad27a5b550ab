"""What ptsdk-phi contributes."""

from __future__ import annotations

from ptsdk.specs import ModelFamilySpec

PTSDK_API = 1


def ptsdk_model_families() -> list[ModelFamilySpec]:
    """The dense language models of Phi 3, 3.5 and 4."""
    return [
        ModelFamilySpec(
            "phi3",
            "ptsdk_phi.model:Phi3",
            "Phi 3, 3.5 and 4 (also mini), and models of the same architecture",
            architectures=("Phi3ForCausalLM",),
        )
    ]
