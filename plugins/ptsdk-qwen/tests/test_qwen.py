"""The families as a run uses them; numbers against transformers are in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ptsdk.contracts.model import ModelFamily
from ptsdk.errors import UserError
from ptsdk_qwen.model import Qwen2, Qwen3
from ptsdk_qwen.plugin import ptsdk_model_families

families = pytest.mark.parametrize("family", [Qwen2(), Qwen3()], ids=["qwen2", "qwen3"])


def test_the_specs_name_what_exists() -> None:
    specs = ptsdk_model_families()
    assert [spec.target for spec in specs] == [f"{f.__module__}:{f.__name__}" for f in (Qwen2, Qwen3)]
    assert [spec.architectures for spec in specs] == [f.architectures for f in (Qwen2, Qwen3)]


@families
def test_a_model_from_scratch_has_transformers_names_and_shapes(family: ModelFamily) -> None:
    config = family.full_config(family.tiny_config())
    with torch.device("meta"):
        model = family.build(config)
        oracle = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    assert type(oracle).__name__ == config["architectures"][0]
    shapes = {name: tensor.shape for name, tensor in oracle.state_dict().items() if name not in model.tied()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes


@families
def test_a_released_config_is_read(family: ModelFamily) -> None:
    """The keys of Qwen2.5-0.5B and of Qwen3-0.6B: sliding windows are there, and switched off."""
    config = {
        **family.tiny_config(), "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 1,
        "rope_parameters": None, "rope_theta": 1_000_000.0, "rope_scaling": None, "attention_dropout": 0.0,
        "torch_dtype": "bfloat16", "use_mrope": False, "use_cache": True, "bos_token_id": 151643,
    }  # fmt: skip
    with torch.device("meta"):
        model = family.build(config)
    assert {block.self_attn.window for block in model.layers} == {None}
    assert model.settings.rope_parameters.rope_theta == 1_000_000


@families
@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"hidden_act": "gelu"}, "model.config.hidden_act"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "model.config.rope_parameters.rope_type"),
        ({"attention_dropout": 0.1}, "model.config.attention_dropout"),
        ({"quantization_config": {"quant_method": "gptq"}}, "model.config.quantization_config"),
        ({"layer_types": ["chunked_attention"] * 3}, "model.config.layer_types.0"),
        ({"layer_types": ["full_attention"] * 2}, "model.config"),
        ({"use_sliding_window": True, "sliding_window": None}, "model.config"),
        ({"use_sliding_window": False, "layer_types": ["sliding_attention"] * 3}, "model.config"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "model.config"),
    ],
)
def test_what_would_change_the_maths_is_refused(family: ModelFamily, keys: dict[str, Any], path: str) -> None:
    with pytest.raises(UserError) as caught:
        family.build({**family.tiny_config(), **keys})
    assert {problem.path.replace(".2", ".0").replace(".1", ".0") for problem in caught.value.problems} == {path}


def test_only_qwen3_has_heads_that_do_not_divide_the_width() -> None:
    keys = {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 6}
    with torch.device("meta"):
        Qwen3().build({**Qwen3().tiny_config(), **keys})
    with pytest.raises(UserError, match="not a multiple"):
        Qwen2().build({**Qwen2().tiny_config(), **keys, "head_dim": None})
