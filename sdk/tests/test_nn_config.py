"""What a family reads from config.json, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig

from ptsdk.builtin.tiny import TinyConfig
from ptsdk.errors import UserError
from ptsdk.nn.config import RotaryConfig

LINEAR = {"rope_type": "linear", "factor": 2}


def problems(config: dict[str, Any], scratch: bool = False) -> dict[str, str]:
    with pytest.raises(UserError) as caught:
        (TinyConfig.complete if scratch else TinyConfig.read)(config)
    return {problem.path: f"{problem.message} | {problem.hint}" for problem in caught.value.problems}


def test_checkpoints_may_have_keys_that_no_family_knows() -> None:
    config = {"hidden_size": 32, "_name_or_path": "x", "some_vendor_key": {"a": 1}}
    assert TinyConfig.read(config).hidden_size == 32


def test_keys_written_by_hand_must_be_known() -> None:
    found = problems({"hiden_size": 32, "zzz": 1, "vocab_size": 100}, scratch=True)
    assert set(found) == {"model.config.hiden_size", "model.config.zzz"}
    assert "did you mean 'hidden_size'?" in found["model.config.hiden_size"]
    assert "known keys: " in found["model.config.zzz"]


def test_every_bad_value_is_named_at_once() -> None:
    found = problems({"hidden_size": -1, "attention_dropout": 0.1, "quantization_config": {"bits": 4}, "head_dim": "a"})
    assert set(found) == {
        f"model.config.{key}" for key in ("hidden_size", "attention_dropout", "quantization_config", "head_dim")
    }
    assert "attention_dropout = 0.1 is not supported" in found["model.config.attention_dropout"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size 30 is not a multiple"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(config: dict[str, Any], message: str) -> None:
    assert message in problems(config)["model.config"]


def test_a_model_of_another_type_is_refused() -> None:
    assert "model.config.model_type" in problems({"model_type": "llama"})


def test_a_nested_key_is_named_in_full() -> None:
    found = problems({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}})
    assert "model.config.rope_parameters.rope_type" in found


@pytest.mark.parametrize(
    ("config", "theta", "rope_type"),
    [
        ({}, 10_000.0, "default"),
        ({"rope_theta": 5.0}, 5.0, "default"),
        ({"rope_scaling": None}, 10_000.0, "default"),
        ({"rope_parameters": {"rope_theta": 6.0, "rope_type": "default"}}, 6.0, "default"),
        ({"rope_theta": 7.0, "rope_scaling": {"type": "linear", "factor": 2}}, 7.0, "linear"),
        ({"rope_parameters": {"rope_theta": 8.0}, "rope_scaling": LINEAR}, 10_000.0, "linear"),
    ],
)
def test_both_spellings_of_rope_are_read_as_transformers_reads_them(
    config: dict[str, Any], theta: float, rope_type: str
) -> None:
    rope = RotaryConfig.read({**TinyConfig.complete({}), "rope_parameters": None, **config}).rope_parameters
    theirs = LlamaConfig(**config).rope_parameters
    assert (rope.rope_theta, rope.rope_type) == (theta, rope_type)
    assert (theirs["rope_theta"], theirs["rope_type"]) == (theta, rope_type)


def test_a_completed_config_is_complete() -> None:
    full = TinyConfig.complete({"hidden_size": 32})
    assert TinyConfig.complete(full) == full
    assert TinyConfig.read(full) == TinyConfig.read({"hidden_size": 32})
    assert full["architectures"] == ["TinyForCausalLM"]
    assert full["model_type"] == "tiny"
