"""What ptsdk-llama contributes."""

from __future__ import annotations

from ptsdk.specs import ModelFamilySpec

PTSDK_API = 1


def ptsdk_model_families() -> list[ModelFamilySpec]:
    """Llama 2, 3, 3.1, 3.2 and what is built like them."""
    return [
        ModelFamilySpec(
            "llama",
            "ptsdk_llama.model:Llama",
            "Llama 2 and 3.x, and models of the same architecture",
            architectures=("LlamaForCausalLM",),
        )
    ]
