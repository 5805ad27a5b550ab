"""What differs between model families in a GGUF file: one ``Architecture`` each, as data.

To read another family, describe it in a file beside ``llama.py`` and add it to ``format.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ptsdk.errors import Problem, UserError
from ptsdk_gguf.header import Header

DECODER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Modules that llama.cpp names alike in every decoder."""

DECODER_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
"""Metadata that every decoder's config.json has."""

TENSOR = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<module>\w+)\.(?P<kind>weight|bias)")


@dataclass(frozen=True)
class Pieces:
    """How a SentencePiece vocabulary of this family becomes BPE.

    Attributes:
        ranked_by_place: merges follow the order of pieces in the file, not their scores.
        escaped_blanks: runs of blanks, which the file spells out, are pieces with U+2581.
    """

    ranked_by_place: bool = False
    escaped_blanks: bool = False


@dataclass(frozen=True)
class Architecture:
    """One model family.

    Attributes:
        names: llama.cpp's name of a module -> ours; inside a block, without ``blk.N.``.
        config: config.json's keys from the header, beyond what every decoder has.
        undo: turns a tensor of the given Hugging Face name back from what llama.cpp's converter
            made of it.
        pieces: see ``Pieces``.
        derived: tensors that are no parameters; ``config`` reads them.
    """

    names: Mapping[str, str]
    config: Callable[[Header], dict[str, Any]]
    undo: Callable[[str, Tensor, Mapping[str, Any]], Tensor]
    pieces: Pieces = Pieces()
    derived: frozenset[str] = frozenset()


def tensor_names(header: Header, architecture: Architecture) -> dict[str, str]:
    """Hugging Face name -> name in the file.

    Raises:
        UserError: a tensor that the family does not have.
    """
    names = {_name(name, architecture): name for name in header.tensors if name not in architecture.derived}
    if unknown := names.get(""):
        message = f"tensor {unknown} is not one of a {header.architecture} that is read here"
        raise UserError(Problem(message, "take a plain text model: no experts, no vision", str(header.path)))
    return names


def _name(name: str, architecture: Architecture) -> str:
    """The Hugging Face name, empty where there is none."""
    match = TENSOR.fullmatch(name)
    module = architecture.names.get(match["module"]) if match else None
    if match is None or module is None:
        return ""
    block = f"model.layers.{match['layer']}." if match["layer"] else ""
    return f"{block}{module}.{match['kind']}"


def model_config(header: Header, architecture: Architecture) -> dict[str, Any]:
    """The keys of config.json.

    Raises:
        UserError: metadata is missing, or asks for what is not read here.
    """
    width, heads = header.need("embedding_length"), header.need("attention.head_count")
    token_ids = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {
        **{ours: header.need(key) for key, ours in DECODER_KEYS.items()},
        "num_key_value_heads": header.get("attention.head_count_kv", heads),
        "head_dim": header.get("attention.key_length", width // heads),
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **{key: header.metadata.get(f"tokenizer.ggml.{name}_token_id") for key, name in token_ids.items()},
        **architecture.config(header),
    }


def rope_scaling(header: Header) -> dict[str, Any] | None:
    """``rope_scaling`` as the metadata states it.

    Raises:
        UserError: a scaling other than linear.
    """
    kind = header.get("rope.scaling.type", "none")
    if kind == "linear":
        return {"rope_type": "linear", "factor": header.need("rope.scaling.factor")}
    if kind != "none":
        message = f"{header.architecture}.rope.scaling.type = {kind!r} is not read; none and linear are"
        raise UserError(Problem(message, "take the safetensors checkpoint of this model", str(header.path)))
    return None
