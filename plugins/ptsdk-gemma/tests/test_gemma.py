"""The family as a run uses it; numbers against transformers are in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ptsdk.contracts.model import ModelFamily
from ptsdk.errors import UserError
from ptsdk_gemma.first import Gemma
from ptsdk_gemma.model import Gemma3
from ptsdk_gemma.plugin import ptsdk_model_families

families = pytest.mark.parametrize("family", [Gemma(), Gemma3()], ids=["gemma", "gemma3"])


def test_the_spec_names_what_exists() -> None:
    specs = ptsdk_model_families()
    assert [spec.target for spec in specs] == [f"{f.__module__}:{f.__name__}" for f in (Gemma, Gemma3)]
    assert [spec.architectures for spec in specs] == [f.architectures for f in (Gemma, Gemma3)]


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
def test_norms_start_at_zero_which_is_a_factor_of_one(family: ModelFamily) -> None:
    model = family.build(family.tiny_config())
    for name, parameter in model.named_parameters():
        model.init_weight(name, parameter, torch.Generator().manual_seed(0))
    assert all((p == 0).all() for name, p in model.named_parameters() if name.endswith("norm.weight"))


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"hidden_activation": "silu"}, "model.config.hidden_activation"),
        ({"attn_logit_softcapping": 50.0}, "model.config.attn_logit_softcapping"),
        ({"use_bidirectional_attention": True}, "model.config.use_bidirectional_attention"),
        ({"layer_types": ["full_attention"]}, "model.config"),
        ({"layer_types": ["chunked_attention"] * 3}, "model.config.layer_types.0"),
        ({"sliding_window": None}, "model.config.sliding_window"),
        ({"model_type": "gemma3"}, "model.config.model_type"),
        ({"rope_parameters": {"rope_theta": 5.0}}, "model.config.rope_parameters.rope_theta.[key]"),
    ],
)
def test_what_would_change_the_maths_is_refused(keys: dict[str, Any], path: str) -> None:
    with pytest.raises(UserError) as caught:
        Gemma3().build({**Gemma3().tiny_config(), **keys})
    assert path in [problem.path for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"hidden_act": "silu"}, "model.config.hidden_act"),
        ({"hidden_activation": "gelu"}, "model.config.hidden_activation"),
        ({"use_bidirectional_attention": True}, "model.config.use_bidirectional_attention"),
        ({"attention_dropout": 0.1}, "model.config.attention_dropout"),
    ],
)
def test_what_would_change_the_maths_of_the_first_is_refused(keys: dict[str, Any], path: str) -> None:
    with pytest.raises(UserError) as caught:
        Gemma().build({**Gemma().tiny_config(), **keys})
    assert path in [problem.path for problem in caught.value.problems]


def test_a_cap_reaches_the_head() -> None:
    assert Gemma3().build(Gemma3().tiny_config()).head().softcap == 30.0
