"""Every family on small, odd shapes against transformers with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from ptsdk.contracts.model import ModelFamily
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk_gemma.first import Gemma
from ptsdk_gemma.model import Gemma3
from ptsdk_llama.model import Llama
from ptsdk_mistral.model import Mistral
from ptsdk_phi.model import Phi3
from ptsdk_qwen.model import Qwen2, Qwen3

LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}

LLAMA: dict[str, dict[str, Any]] = {
    "grouped": {"num_attention_heads": 6, "num_key_value_heads": 3},
    "head_dim_not_d_over_h": {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 14},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "biases": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2},
    "llama3_scaling": {"rope_parameters": {"rope_theta": 500.0, **LLAMA3}, "head_dim": 32},
    "llama3_scaling_older_keys": {"rope_theta": 500.0, "rope_scaling": LLAMA3, "head_dim": 32},
    "linear_scaling_older_type_key": {"rope_scaling": {"type": "linear", "factor": 3.0}},
    "rope_theta_older_key": {"rope_theta": 77.0},
}
GEMMA: dict[str, dict[str, Any]] = {
    "grouped": {"num_attention_heads": 6, "num_key_value_heads": 2, "query_pre_attn_scalar": 5},
    "head_dim_not_d_over_h": {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 14},
    "untied_and_capped": {"tie_word_embeddings": False, "final_logit_softcapping": 2.0},
    "narrow_window": {"sliding_window": 2},
    "pattern": {"num_hidden_layers": 5, "sliding_window_pattern": 2},
    "layer_types": {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    "all_sliding": {"layer_types": ["sliding_attention"] * 3},
    "bases_in_older_keys": {"rope_theta": 300.0, "rope_local_base_freq": 20.0},
    "bases_nested": {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 300.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
        }
    },
    "linear_scaling_of_full_layers": {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    "biases": {"attention_bias": True},
}
GEMMA_1: dict[str, dict[str, Any]] = {
    "grouped": {"num_attention_heads": 6, "num_key_value_heads": 2},
    "heads_that_do_not_divide_the_width": {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 14},
    "untied": {"tie_word_embeddings": False, "rms_norm_eps": 1e-3},
    "activation_of_the_first_release": {"hidden_act": "gelu"},
    "rope_theta_older_key": {"rope_theta": 77.0},
    "biases": {"attention_bias": True},
}
SLIDING = {"use_sliding_window": True, "sliding_window": 5}
QWEN: dict[str, dict[str, Any]] = {
    "grouped": {"num_attention_heads": 6, "num_key_value_heads": 3},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "sliding_from_the_second_layer": {**SLIDING, "max_window_layers": 1},
    "sliding_by_layer_types": {**SLIDING, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "sliding_everywhere": {**SLIDING, "max_window_layers": 0},
    "no_layer_slides": {**SLIDING, "max_window_layers": 3},
    "window_without_use": {"sliding_window": 2, "max_window_layers": 0},
    "llama3_scaling": {"rope_parameters": {"rope_theta": 500.0, **LLAMA3}},
    "linear_scaling_older_keys": {"rope_theta": 77.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
}
QWEN2 = {**QWEN, "head_dim_not_d_over_h": {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 14}}
QWEN3 = {
    **QWEN,
    "heads_that_do_not_divide_the_width": {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 14},
    "biases": {"attention_bias": True},
}
MISTRAL: dict[str, dict[str, Any]] = {
    "grouped": {"num_attention_heads": 6, "num_key_value_heads": 3},
    "heads_that_do_not_divide_the_width": {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 14},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "no_window": {"sliding_window": None},
    "narrower_window": {"sliding_window": 5},
    "rope_theta_older_key": {"rope_theta": 77.0},
    "linear_scaling_older_keys": {"rope_theta": 77.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 4.0, 6.0]}
LONG |= {"partial_rotary_factor": 0.7}
PHI: dict[str, dict[str, Any]] = {
    "grouped": {"num_attention_heads": 6, "num_key_value_heads": 3},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "windowed": {"sliding_window": 5},
    "turned_in_part": {"rope_parameters": {"rope_theta": 77.0, "partial_rotary_factor": 0.5}},
    "turned_in_part_older_keys": {"rope_theta": 77.0, "partial_rotary_factor": 0.5},
    "long": {"rope_parameters": {"rope_theta": 77.0, **LONG}, "original_max_position_embeddings": 12},
    "long_older_keys": {
        "original_max_position_embeddings": 12, "rope_theta": 77.0, "partial_rotary_factor": 0.7,
        "rope_scaling": {"type": "longrope", "short_factor": LONG["short_factor"], "long_factor": LONG["long_factor"]},
    },
    "long_by_a_factor": {
        "rope_parameters": {"rope_theta": 77.0, **LONG, "factor": 4.0}, "original_max_position_embeddings": 12,
    },
    "long_by_an_attention_factor": {
        "rope_parameters": {"rope_theta": 77.0, **LONG, "attention_factor": 1.5},
        "original_max_position_embeddings": 12,
    },
}  # fmt: skip
SMALL = {"vocab_size": 61, "hidden_size": 48, "intermediate_size": 36, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL |= {"max_position_embeddings": 128, "pad_token_id": None}
GEMMA_SMALL = {**SMALL, "head_dim": 16, "num_key_value_heads": 2, "sliding_window": 7, "sliding_window_pattern": 3}
QWEN_SMALL = {**SMALL, "num_key_value_heads": 2}
MISTRAL_SMALL = {**SMALL, "num_key_value_heads": 2, "sliding_window": 7}
PHI_SMALL = {**SMALL, "num_key_value_heads": 2, "eos_token_id": 2}
LENGTHS = (23, 1, 9, 16)

CASES = [
    *(pytest.param(Llama(), transformers.LlamaForCausalLM, {**SMALL, **c}, id=f"llama-{n}") for n, c in LLAMA.items()),
    *(
        pytest.param(Gemma3(), transformers.Gemma3ForCausalLM, {**GEMMA_SMALL, **c}, id=f"gemma3-{n}")
        for n, c in GEMMA.items()
    ),
    *(
        pytest.param(Gemma(), transformers.GemmaForCausalLM, {**QWEN_SMALL, "head_dim": 16, **c}, id=f"gemma-{n}")
        for n, c in GEMMA_1.items()
    ),
    *(
        pytest.param(Qwen2(), transformers.Qwen2ForCausalLM, {**QWEN_SMALL, **c}, id=f"qwen2-{n}")
        for n, c in QWEN2.items()
    ),
    *(
        pytest.param(Qwen3(), transformers.Qwen3ForCausalLM, {**QWEN_SMALL, "head_dim": 18, **c}, id=f"qwen3-{n}")
        for n, c in QWEN3.items()
    ),
    *(
        pytest.param(Mistral(), transformers.MistralForCausalLM, {**MISTRAL_SMALL, **c}, id=f"mistral-{n}")
        for n, c in MISTRAL.items()
    ),
    *(pytest.param(Phi3(), transformers.Phi3ForCausalLM, {**PHI_SMALL, **c}, id=f"phi3-{n}") for n, c in PHI.items()),
]
FIRST = list({type(case.values[0]): case for case in reversed(CASES)}.values())
pair = pytest.mark.parametrize(("family", "oracle_class", "keys"), CASES)


def build(family: ModelFamily, oracle_class: Any, keys: dict[str, Any]) -> tuple[CausalLM, Any]:
    """Both models in float64 with the same large random weights."""
    torch.manual_seed(0)
    oracle = oracle_class(oracle_class.config_class(**keys, attn_implementation="eager")).double().eval()
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model = family.build(keys).double()
    tensors = {name: t for name, t in oracle.state_dict().items() if name not in model.tied()}
    model.load_state_dict(tensors, strict=True)
    return model, oracle


def documents(vocab_size: int) -> list[list[int]]:
    torch.manual_seed(1)
    return [torch.randint(vocab_size, (n,)).tolist() for n in LENGTHS]


def oracle_logits(oracle: Any, docs: list[list[int]]) -> Tensor:
    """Each document alone, laid end to end: [N, V]."""
    return torch.cat([oracle(torch.tensor([doc])).logits[0] for doc in docs])


@pair
def test_logits_and_gradients_equal_those_of_transformers(family: Any, oracle_class: Any, keys: dict[str, Any]) -> None:
    model, oracle = build(family, oracle_class, keys)
    docs = documents(model.vocab_size)
    ours, theirs = model.head().logits(model(Batch.pack(docs))), oracle_logits(oracle, docs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.std().item())

    probe = torch.randn_like(theirs)
    (ours * probe).sum().backward()
    (theirs * probe).sum().backward()
    expected = {name: parameter.grad for name, parameter in oracle.named_parameters()}
    assert expected.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert expected[name].abs().max() > 0, f"{name} has no gradient: the comparison would be empty"
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


@pair
def test_config_for_export_builds_the_same_model_in_transformers(
    family: Any, oracle_class: Any, keys: dict[str, Any], tmp_path: Path
) -> None:
    _, oracle = build(family, oracle_class, keys)
    full = family.full_config(keys)
    (tmp_path / "config.json").write_text(json.dumps(full))
    config = transformers.AutoConfig.from_pretrained(tmp_path, attn_implementation="eager")
    assert type(config) is oracle_class.config_class
    rebuilt = oracle_class(config).double().eval()
    rebuilt.load_state_dict(oracle.state_dict())
    docs = documents(full["vocab_size"])
    torch.testing.assert_close(oracle_logits(rebuilt, docs), oracle_logits(oracle, docs))


@pytest.mark.parametrize(("family", "oracle_class", "keys"), FIRST)
def test_rounding_in_bfloat16_is_that_of_transformers(family: Any, oracle_class: Any, keys: dict[str, Any]) -> None:
    """On documents of one token, where every attention kernel gives the value itself, what is left
    is the embedding factor, the norms and the activation: they round where transformers rounds."""
    model, oracle = build(family, oracle_class, keys)
    docs = [[token] for token in range(model.vocab_size)]
    exact = oracle_logits(oracle, docs)
    model, oracle = model.bfloat16(), oracle.bfloat16()
    ours, theirs = model.head().logits(model(Batch.pack(docs))), oracle_logits(oracle, docs)
    assert (ours - theirs).double().norm() < 0.1 * (theirs - exact).norm()


@pair
def test_documents_packed_together_do_not_see_each_other(family: Any, oracle_class: Any, keys: dict[str, Any]) -> None:
    model, _ = build(family, oracle_class, keys)
    docs = documents(model.vocab_size)
    alone = torch.cat([model(Batch.pack([doc])) for doc in docs])
    torch.testing.assert_close(model(Batch.pack(docs)), alone, rtol=1e-6, atol=1e-6)


@pair
def test_a_token_changes_nothing_before_it(family: Any, oracle_class: Any, keys: dict[str, Any]) -> None:
    model, _ = build(family, oracle_class, keys)
    doc = documents(model.vocab_size)[0]
    edited = [*doc[:11], (doc[11] + 1) % model.vocab_size, *doc[12:]]
    before, after = model(Batch.pack([doc])), model(Batch.pack([edited]))
    torch.testing.assert_close(after[:11], before[:11], rtol=1e-6, atol=1e-6)
    assert (after[11:] - before[11:]).abs().amax(dim=1).min() > 1e-4
