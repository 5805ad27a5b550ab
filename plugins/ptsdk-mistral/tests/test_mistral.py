"""The family as a run uses it; numbers against transformers are in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ptsdk.errors import UserError
from ptsdk_mistral.model import Mistral
from ptsdk_mistral.plugin import ptsdk_model_families


def test_the_spec_names_what_exists() -> None:
    (spec,) = ptsdk_model_families()
    assert spec.target == f"{Mistral.__module__}:{Mistral.__name__}"
    assert spec.architectures == Mistral.architectures


def test_a_model_from_scratch_has_transformers_names_and_shapes() -> None:
    family = Mistral()
    config = family.full_config(family.tiny_config())
    with torch.device("meta"):
        model = family.build(config)
        oracle = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    assert type(oracle) is transformers.MistralForCausalLM
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in oracle.state_dict().items()}


@pytest.mark.parametrize(("keys", "window"), [({}, 4096), ({"sliding_window": None}, None), ({"sliding_window": 7}, 7)])
def test_a_window_that_is_not_given_is_that_of_transformers(keys: dict[str, Any], window: int | None) -> None:
    """A null is written into an export: left out, it would be 4096 there."""
    family = Mistral()
    tiny = {key: value for key, value in family.tiny_config().items() if key != "sliding_window"}
    full = family.full_config({**tiny, **keys})
    assert full["sliding_window"] == window == transformers.MistralConfig(**full).sliding_window
    with torch.device("meta"):
        assert {block.self_attn.window for block in family.build(full).layers} == {window}


def test_a_released_config_is_read() -> None:
    """The keys of Mistral Nemo: heads narrower than the width says, and no window."""
    config = {
        **Mistral().tiny_config(), "hidden_size": 40, "head_dim": 8, "sliding_window": None, "rope_parameters": None,
        "rope_theta": 1_000_000.0, "attention_dropout": 0.0, "torch_dtype": "bfloat16", "use_cache": True,
    }  # fmt: skip
    with torch.device("meta"):
        model = Mistral().build(config)
    assert model.get_parameter("model.layers.0.self_attn.q_proj.weight").shape == (32, 40)


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"hidden_act": "gelu"}, "model.config.hidden_act"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "model.config.rope_parameters.rope_type"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "model.config.layer_types"),
        ({"quantization_config": {"quant_method": "gptq"}}, "model.config.quantization_config"),
        ({"attention_dropout": 0.1}, "model.config.attention_dropout"),
        ({"pad_token_id": 320}, "model.config"),
    ],
)
def test_what_would_change_the_maths_is_refused(keys: dict[str, Any], path: str) -> None:
    with pytest.raises(UserError) as caught:
        Mistral().build({**Mistral().tiny_config(), **keys})
    assert {problem.path for problem in caught.value.problems} == {path}
