"""What ptsdk-qwen contributes."""

from __future__ import annotations

from ptsdk.specs import ModelFamilySpec

PTSDK_API = 1


def ptsdk_model_families() -> list[ModelFamilySpec]:
    """The dense language models of Qwen 2, 2.5 and 3."""
    return [
        ModelFamilySpec(
            "qwen2",
            "ptsdk_qwen.model:Qwen2",
            "Qwen 2 and 2.5, and models of the same architecture",
            architectures=("Qwen2ForCausalLM",),
        ),
        ModelFamilySpec(
            "qwen3",
            "ptsdk_qwen.model:Qwen3",
            "Qwen 3, dense, and models of the same architecture",
            architectures=("Qwen3ForCausalLM",),
        ),
    ]
