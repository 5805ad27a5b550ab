"""The family as a run uses it; numbers against transformers are in tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ptsdk.errors import RunError, UserError
from ptsdk.generate.engine import generate
from ptsdk.generate.sampling import SamplingParams
from ptsdk.nn.batch import Batch
from ptsdk_phi.model import Phi3
from ptsdk_phi.plugin import ptsdk_model_families
from ptsdk_phi.rope import document_lengths

ORIGINAL = 20


def test_the_spec_names_what_exists() -> None:
    (spec,) = ptsdk_model_families()
    assert spec.target == f"{Phi3.__module__}:{Phi3.__name__}"
    assert spec.architectures == Phi3.architectures


def test_a_model_from_scratch_has_transformers_names_and_shapes() -> None:
    family = Phi3()
    config = family.full_config(family.tiny_config())
    with torch.device("meta"):
        model = family.build(config)
        oracle = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    assert type(oracle) is transformers.Phi3ForCausalLM
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in oracle.state_dict().items()}


def test_a_released_config_is_read() -> None:
    """The keys of Phi-4-mini-instruct."""
    tiny = Phi3().tiny_config()
    rope = tiny.pop("rope_parameters")
    scaling = {"type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
    config = {
        **tiny, "rope_scaling": scaling, "rope_theta": 10_000.0, "partial_rotary_factor": 0.75, "attention_bias": False,
        "attention_dropout": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "full_attn_mod": 1, "interpolate_factor": 1,
        "lm_head_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    }  # fmt: skip
    with torch.device("meta"):
        model = Phi3().build(config)
    assert model.settings.rope_parameters.original_max_position_embeddings == 128


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"hidden_act": "gelu"}, "model.config.hidden_act"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "model.config.rope_parameters.rope_type"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "model.config.rope_parameters"),
        ({"original_max_position_embeddings": 64, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 1.0, "partial_rotary_factor": 0.5, "short_factor": [1.0, 2.0],
            "long_factor": [1.0, 2.0], "original_max_position_embeddings": 32}}, "model.config"),
        ({"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0]}}, "model.config"),
        ({"partial_rotary_factor": 0.4, "rope_parameters": {"rope_theta": 1.0}}, "model.config"),
        ({"quantization_config": {"quant_method": "gptq"}}, "model.config.quantization_config"),
        ({"attention_dropout": 0.1}, "model.config.attention_dropout"),
        ({"resid_pdrop": 0.1}, "model.config.resid_pdrop"),
        ({"head_dim": 8}, "model.config.head_dim"),
    ],
)  # fmt: skip
def test_what_would_change_the_maths_is_refused(keys: dict[str, Any], path: str) -> None:
    with pytest.raises(UserError) as caught:
        Phi3().build({**Phi3().tiny_config(), **keys})
    assert {problem.path for problem in caught.value.problems} == {path}


def test_a_document_is_as_long_as_its_last_token_says() -> None:
    whole = torch.tensor([0, 1, 2, 0, 0, 1])
    assert document_lengths(whole, ORIGINAL).tolist() == [3, 3, 3, 1, 2, 2]
    completions = torch.tensor([7, 8, 3, 30])  # of four documents, whatever their order looks like
    assert document_lengths(completions, ORIGINAL).tolist() == [8, 9, 4, 31]
    mixed = torch.tensor([5, 0, 1, 2, 9])
    assert document_lengths(mixed, ORIGINAL).tolist() == [6, 3, 3, 3, 10]


def built() -> tuple[Any, Any]:
    """A model and transformers' with the same weights."""
    torch.manual_seed(0)
    keys = {**Phi3().tiny_config(), "original_max_position_embeddings": ORIGINAL}
    full = Phi3().full_config(keys)
    oracle = transformers.Phi3ForCausalLM(transformers.Phi3Config(**full)).double().eval()
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model = Phi3().build(full).double().eval()
    model.load_state_dict(oracle.state_dict())
    return model, oracle


@pytest.mark.parametrize("length", [4, 30], ids=["short", "long"])
def test_completions_are_those_of_transformers(length: int) -> None:
    model, oracle = built()
    prompt = torch.randint(3, 320, (length,)).tolist()
    params = SamplingParams(max_new_tokens=10, temperature=0.0)
    (mine,) = generate(model, [prompt], params)
    theirs = oracle.generate(torch.tensor([prompt]), max_new_tokens=10, do_sample=False, eos_token_id=None)
    assert list(mine.tokens) == theirs[0, length:].tolist()


def test_a_completion_that_grows_into_another_rotation_is_refused() -> None:
    model, _ = built()
    prompt = list(range(3, 13))
    generate(model, [prompt], SamplingParams(max_new_tokens=11, temperature=0.0))
    with pytest.raises(RunError, match="passes 20 tokens"):
        generate(model, [prompt], SamplingParams(max_new_tokens=12, temperature=0.0))


def test_what_is_kept_for_the_backward_is_not_all_of_the_projection() -> None:
    """Values are copied out, or queries and keys would wait with them before they are turned."""
    model, _ = built()
    attention = model.layers[0].self_attn
    x = torch.randn(6, 32, dtype=torch.float64)
    value = attention.project(x)[2]
    assert value.untyped_storage().nbytes() == value.numel() * 8
    assert model(Batch.pack([[1, 2, 3]])).shape == (3, 32)
