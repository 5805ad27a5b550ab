"""Small Llama files against transformers reading the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from gguf.constants import GGMLQuantizationType as Kind
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ptsdk.errors import UserError
from ptsdk.nn.batch import Batch
from ptsdk_gguf.format import GGUF

KINDS = {
    "q_proj.weight": Kind.Q8_0,
    "k_proj.weight": Kind.Q5_1,
    "gate_proj.weight": Kind.Q4_0,
    "up_proj.weight": Kind.F16,
    "down_proj.weight": Kind.BF16,
}
TEXTS = [
    "",
    " ",
    "The quick brown fox",
    "  two  blanks ",
    "<turn>a<tool>b</s><s>",
    "日本 語😀 e\u0301\t\n\n x 12345",
    "▁a",
]


@pytest.mark.parametrize("keys", [{}, {"tie_word_embeddings": True}, {"attention_bias": True}])
def test_weights_are_those_of_transformers_to_the_bit(
    tmp_path: Path, write_llama: Any, llama: Any, sentencepiece_fields: Any, keys: dict[str, Any]
) -> None:
    tokens = len(sentencepiece_fields["tokenizer.ggml.tokens"])
    write_llama(tmp_path / "m.gguf", llama(tokens, **keys), sentencepiece_fields, KINDS)
    checkpoint = GGUF().open(tmp_path / "m.gguf")
    config = transformers.LlamaConfig(**checkpoint.config)
    # transformers does not infer attention_bias; with it in the config its reader fills the biases.
    oracle = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32, config=config
    )
    theirs = dict(oracle.named_parameters())
    assert set(theirs) == set(checkpoint.names())
    for name, expected in theirs.items():
        assert checkpoint.shape(name) == expected.shape
        torch.testing.assert_close(checkpoint.tensor(name).float(), expected.data, rtol=0, atol=0, msg=name)


def test_file_of_float32_gives_back_the_model_it_was_written_from(
    tmp_path: Path, write_llama: Any, llama: Any, sentencepiece_fields: Any
) -> None:
    model = llama(len(sentencepiece_fields["tokenizer.ggml.tokens"]), rope_theta=777.0)
    checkpoint = GGUF().open(write_llama(tmp_path / "m.gguf", model, sentencepiece_fields))
    rebuilt = transformers.LlamaForCausalLM(transformers.LlamaConfig(**checkpoint.config)).eval()
    rebuilt.load_state_dict({name: checkpoint.tensor(name) for name in checkpoint.names()})
    ids = torch.arange(40)[None]
    torch.testing.assert_close(rebuilt(ids).logits, model(ids).logits)
    assert checkpoint.generation_config() == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


@pytest.mark.parametrize("fields", ["sentencepiece_fields", "byte_level_fields"])
def test_ids_are_those_of_transformers(
    tmp_path: Path, write_llama: Any, llama: Any, fields: str, request: pytest.FixtureRequest
) -> None:
    metadata = request.getfixturevalue(fields)
    write_llama(tmp_path / "m.gguf", llama(len(metadata["tokenizer.ggml.tokens"])), metadata)
    tokenizer = GGUF().open(tmp_path / "m.gguf").tokenizer()
    assert tokenizer is not None
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == oracle(text).input_ids
        assert tokenizer.decode(ids) == oracle.decode(ids, skip_special_tokens=True)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (oracle.bos_token_id, oracle.eos_token_id)
    assert tokenizer.chat_template == metadata.get("tokenizer.chat_template")


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_scaling_of_llama_3_1_is_found_in_its_factors(
    tmp_path: Path, write_llama: Any, llama: Any, sentencepiece_fields: Any, factor: float
) -> None:
    """transformers passes over these factors, so the oracle is its rotation for the same config."""
    keys = {"hidden_size": 128, "num_attention_heads": 2, "head_dim": 64, "max_position_embeddings": 131072}
    model = llama(len(sentencepiece_fields["tokenizer.ggml.tokens"]), rope_theta=500000.0, **keys)
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": factor, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](transformers.LlamaConfig(rope_parameters=rope, **keys))
    factors = (500000.0 ** (-torch.arange(0, 64, 2) / 64) / scaled).numpy()
    path = write_llama(tmp_path / "m.gguf", model, sentencepiece_fields, extra={"rope_freqs.weight": factors})
    checkpoint = GGUF().open(path)
    assert checkpoint.config["rope_parameters"] == rope
    assert "rope_freqs.weight" not in set(checkpoint.names())

    factors[10] *= 1.1
    write_llama(path, model, sentencepiece_fields, extra={"rope_freqs.weight": factors})
    with pytest.raises(UserError, match="rope_freqs"):
        GGUF().open(path)


def test_model_of_the_plugin_runs_from_the_file(
    tmp_path: Path, write_llama: Any, llama: Any, sentencepiece_fields: Any
) -> None:
    from ptsdk_llama.model import Llama

    theirs = llama(len(sentencepiece_fields["tokenizer.ggml.tokens"]), attention_bias=True)
    checkpoint = GGUF().open(write_llama(tmp_path / "m.gguf", theirs, sentencepiece_fields))
    model = Llama().build(checkpoint.config)
    model.load_state_dict({name: checkpoint.tensor(name) for name in checkpoint.names()})
    ids = list(range(30))
    ours = model.head().logits(model(Batch.pack([ids])))
    torch.testing.assert_close(ours, theirs(torch.tensor([ids])).logits[0], rtol=1e-4, atol=1e-4)
