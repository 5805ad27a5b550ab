"""The family as a run uses it; numbers against transformers are in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ptsdk.errors import UserError
from ptsdk_gemma.model import Gemma3
from ptsdk_gemma.plugin import ptsdk_model_families


def test_the_spec_names_what_exists() -> None:
    (spec,) = ptsdk_model_families()
    assert spec.target == f"{Gemma3.__module__}:{Gemma3.__name__}"
    assert spec.architectures == Gemma3.architectures


def test_a_model_from_scratch_has_transformers_names_and_shapes() -> None:
    family = Gemma3()
    config = family.full_config(family.tiny_config())
    with torch.device("meta"):
        model = family.build(config)
        oracle = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    assert type(oracle) is transformers.Gemma3ForCausalLM
    shapes = {name: tensor.shape for name, tensor in oracle.state_dict().items() if name not in model.tied()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes


def test_norms_start_at_zero_which_is_a_factor_of_one() -> None:
    model = Gemma3().build(Gemma3().tiny_config())
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


def test_a_cap_reaches_the_head() -> None:
    assert Gemma3().build(Gemma3().tiny_config()).head().softcap == 30.0
