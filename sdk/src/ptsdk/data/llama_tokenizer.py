"""What transformers makes of a tokenizer.json whose class is LlamaTokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CLASS = "LlamaTokenizer"
SPACE = "\u2581"


def may_be_rebuilt(config: Mapping[str, Any], model_type: str | None) -> bool:
    """Whether the class is one that rebuilds pipelines.

    Args:
        config: the keys of tokenizer_config.json.
        model_type: of config.json beside it. For many types but the class's own, transformers passes over
            the class.
    """
    named = str(config.get("tokenizer_class", "")).removesuffix("Fast") == CLASS
    return named and model_type in (None, CLASS.removesuffix("Tokenizer").lower())


def is_rebuilt(pipeline: Mapping[str, Any]) -> bool:
    """Whether such a class keeps of ``pipeline``, a tokenizer.json, only vocabulary, merges and post-processor."""
    is_bpe = (pipeline.get("model") or {}).get("type") == "BPE"
    return is_bpe and '"ByteLevel"' not in json.dumps(pipeline)


def rebuilt(config: Mapping[str, Any], pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline as transformers 5 makes it (``models/llama/tokenization_llama.py``): spaces are marked
    in the pre-tokenizer and not in a normalizer, which adds none before one that is there."""
    given = config.get("add_prefix_space")
    adds_space = True if given is None else bool(given)
    scheme = ("always" if config.get("legacy") else "first") if adds_space else "never"
    replace = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if adds_space else []
    return {
        **pipeline,
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False},
        "decoder": {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {
            "type": "BPE",
            "vocab": pipeline["model"]["vocab"],
            "merges": pipeline["model"].get("merges", []),
            "fuse_unk": True,
            "byte_fallback": True,
        },
    }
