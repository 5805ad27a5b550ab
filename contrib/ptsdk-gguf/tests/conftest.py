"""Small GGUF files, written with the gguf package as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from gguf.constants import GGMLQuantizationType
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from ptsdk_gguf.llama import NAMES

Fields = Mapping[str, Any]
WriteLlama = Callable[..., Path]

CORPUS = [
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Numbers: 1, 22, 333, 4444; and  double  blanks, tabs\tand\nlines.",
    "naïve café déjà vu 日本語 😀",
] * 20


def permuted(weight: Tensor, heads: int) -> Tensor:
    """What the converter does to q and k: halves of each head become neighbours."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def stored_name(name: str) -> str:
    module, _, kind = name.removeprefix("model.").rpartition(".")
    block, found = "", module
    if module.startswith("layers."):
        _, layer, found = module.split(".", 2)
        block = f"blk.{layer}."
    theirs = next(theirs for theirs, ours in NAMES.items() if ours.removeprefix("model.") == found)
    return f"{block}{theirs}.{kind}"


@pytest.fixture(scope="session")
def write_llama() -> WriteLlama:
    def write(
        path: Path,
        model: transformers.LlamaForCausalLM,
        fields: Fields,
        kinds: Mapping[str, GGMLQuantizationType] | None = None,
        extra: Mapping[str, np.ndarray] | None = None,
    ) -> Path:
        """``kinds``: how modules are stored, by the end of their name; float32 otherwise."""
        config = model.config
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_name("small")
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        for key, value in fields.items():
            add(writer, key, value)
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            if ".q_proj." in name:
                tensor = permuted(tensor, config.num_attention_heads)
            if ".k_proj." in name:
                tensor = permuted(tensor, config.num_key_value_heads)
            kind = next((k for end, k in (kinds or {}).items() if name.endswith(end)), GGMLQuantizationType.F32)
            data = gguf.quants.quantize(tensor.numpy().astype(np.float32), kind)
            writer.add_tensor(stored_name(name), data, raw_dtype=kind)
        for name, values in (extra or {}).items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    adders: dict[type, Callable[[str, Any], None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    adders[type(value)](key, value)


@pytest.fixture(scope="session")
def llama() -> Callable[..., transformers.LlamaForCausalLM]:
    def make(vocab_size: int, **keys: Any) -> transformers.LlamaForCausalLM:
        shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        shape |= {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
        torch.manual_seed(0)
        config = transformers.LlamaConfig(vocab_size=vocab_size, **{**shape, **keys})
        model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture(scope="session")
def sentencepiece_fields(tmp_path_factory: pytest.TempPathFactory) -> Fields:
    """The metadata of a SentencePiece BPE with byte fallback, as in Llama 2."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "corpus.txt").write_text("\n".join(CORPUS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "m"), vocab_size=420, model_type="bpe",
        byte_fallback=True, character_coverage=0.98, user_defined_symbols=["<tool>"], control_symbols=["<turn>"],
        split_digits=True, allow_whitespace_only_pieces=True, remove_extra_whitespaces=False,
        normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.model"))
    ids = range(pieces.vocab_size())
    kinds = [(pieces.is_unknown, 2), (pieces.is_control, 3), (pieces.is_byte, 6)]
    types = [next((kind for test, kind in kinds if test(i)), 1) for i in ids]
    types[pieces.piece_to_id("<tool>")] = 4
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [pieces.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [float(pieces.get_score(i)) for i in ids],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }


@pytest.fixture(scope="session")
def byte_level_fields() -> Fields:
    """The metadata of a byte-level BPE, as in Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
    }
