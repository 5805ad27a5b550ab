"""Which official package has a component that nobody installed provides.

The one place in core that knows plugins by name. It is used for messages alone.
"""

from __future__ import annotations

_BY_DIST: dict[str, dict[str, tuple[str, ...]]] = {
    "ptsdk-llama": {"model-family": ("llama", "llama2", "llama3")},
    "ptsdk-gemma": {"model-family": ("gemma", "gemma3")},
    "ptsdk-qwen": {"model-family": ("qwen", "qwen2", "qwen3")},
    "ptsdk-mistral": {"model-family": ("mistral",)},
    "ptsdk-phi": {"model-family": ("phi", "phi3", "phi4")},
    "ptsdk-lora": {"adapter": ("lora", "rslora", "dora", "qlora")},
    "ptsdk-dpo": {"method": ("dpo",), "loss": ("sigmoid", "hinge", "ipo", "simpo")},
    "ptsdk-kd": {"method": ("kd",), "loss": ("forward_kl", "reverse_kl", "jsd")},
    "ptsdk-grpo": {"method": ("grpo",), "loss": ("grpo", "dr_grpo", "dapo")},
    "ptsdk-torchao": {"quantizer": ("nf4", "int4", "int8", "float8", "torchao")},
    "ptsdk-qat": {"quantizer": ("qat",), "command": ("quantize",)},
    "ptsdk-fsdp2": {"strategy": ("fsdp2", "fsdp")},
    "ptsdk-wandb": {"logger": ("wandb",)},
    "ptsdk-mlflow": {"logger": ("mlflow",)},
    "ptsdk-gguf": {"checkpoint-format": ("gguf",)},
    "ptsdk-lm-eval": {"command": ("eval",)},
    "ptsdk-torchtune": {"command": ("migrate",)},
    "ptsdk-templates": {"command": ("new-plugin",)},
}

_CAPABLE: dict[tuple[str, str], str] = {
    ("adapter", "low-rank"): "ptsdk-lora",
    ("quantizer", "packs"): "ptsdk-torchao",
    ("optimizer", "small-state"): "ptsdk-torchao",
    ("strategy", "sharded"): "ptsdk-fsdp2",
}

_ARCHITECTURES: dict[str, str] = {
    "LlamaForCausalLM": "ptsdk-llama",
    "GemmaForCausalLM": "ptsdk-gemma",
    "Gemma3ForCausalLM": "ptsdk-gemma",
    "Qwen2ForCausalLM": "ptsdk-qwen",
    "Qwen3ForCausalLM": "ptsdk-qwen",
    "MistralForCausalLM": "ptsdk-mistral",
    "Phi3ForCausalLM": "ptsdk-phi",
}


def provider(kind: str, name: str) -> str | None:
    """The official dist that has the component ``name`` of a kind, None when there is none."""
    return next((dist for dist, kinds in _BY_DIST.items() if name in kinds.get(kind, ())), None)


def capability_provider(kind: str, capability: str) -> str | None:
    """The official dist whose components of a kind have a capability."""
    return _CAPABLE.get((kind, capability))


def architecture_provider(architecture: str) -> str | None:
    """The official dist that reads an ``architectures`` entry of config.json (``LlamaForCausalLM``)."""
    return _ARCHITECTURES.get(architecture)


def is_official(dist: str) -> bool:
    """Whether a dist of that name is one of the project's own packages."""
    return dist in _BY_DIST
