"""The family as a run uses it; numbers against transformers are in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ptsdk.errors import UserError
from ptsdk_llama.model import Llama
from ptsdk_llama.plugin import ptsdk_model_families


def test_the_spec_names_what_exists() -> None:
    (spec,) = ptsdk_model_families()
    assert spec.target == f"{Llama.__module__}:{Llama.__name__}"
    assert spec.architectures == Llama.architectures


def test_a_model_from_scratch_has_transformers_names_and_shapes() -> None:
    family = Llama()
    config = family.full_config(family.tiny_config())
    with torch.device("meta"):
        model = family.build(config)
        oracle = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    assert type(oracle) is transformers.LlamaForCausalLM
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in oracle.state_dict().items()}


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"hidden_act": "gelu"}, "model.config.hidden_act"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "model.config.rope_parameters.rope_type"),
        ({"partial_rotary_factor": 0.5}, "model.config.partial_rotary_factor"),
        ({"original_max_position_embeddings": 64}, "model.config.original_max_position_embeddings"),
        ({"quantization_config": {"quant_method": "gptq"}}, "model.config.quantization_config"),
        ({"attention_dropout": 0.1}, "model.config.attention_dropout"),
    ],
)
def test_what_would_change_the_maths_is_refused(keys: dict[str, Any], path: str) -> None:
    with pytest.raises(UserError) as caught:
        Llama().build({**Llama().tiny_config(), **keys})
    assert [problem.path for problem in caught.value.problems] == [path]
