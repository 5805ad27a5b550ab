"""The built-in family: a Llama by another name, so transformers' Llama is its oracle."""

from __future__ import annotations

import pytest
import torch
import transformers

from ptsdk.builtin.tiny import Tiny, TinyForCausalLM
from ptsdk.contracts.model import ModelFamily
from ptsdk.errors import UserError
from ptsdk.nn.batch import Batch

DOCS = [[5, 6, 7, 8, 9, 300, 2], [1], [256, 40, 41, 42, 257]]


def seeded(model: TinyForCausalLM, seed: int = 0) -> TinyForCausalLM:
    """Initialised as a run does it: a generator for each name."""
    for index, (name, parameter) in enumerate(sorted(model.named_parameters())):
        model.init_weight(name, parameter, torch.Generator().manual_seed(seed * 1000 + index))
    return model


@pytest.fixture
def model() -> TinyForCausalLM:
    return seeded(Tiny().build(Tiny().full_config({})))


def test_it_needs_no_keys() -> None:
    config = Tiny().full_config({})
    assert config["vocab_size"] == 320  # the byte tokenizer's 259 ids, and a round number
    assert Tiny().build(config).vocab_size == 320
    assert Tiny().build({}).config == {}


def test_it_is_a_llama(model: TinyForCausalLM) -> None:
    config = {**Tiny().full_config({}), "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    oracle = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    missing, unexpected = oracle.load_state_dict(model.state_dict(), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # tied
    assert model.tied() == {"lm_head.weight": "model.embed_tokens.weight"}
    ours = torch.split(model.head().logits(model(Batch.pack(DOCS))), [len(doc) for doc in DOCS])
    for doc, logits in zip(DOCS, ours, strict=True):
        torch.testing.assert_close(logits, oracle(torch.tensor([doc])).logits[0], rtol=1e-4, atol=1e-5)


def test_untied_it_has_a_head_of_its_own() -> None:
    model = Tiny().build({"tie_word_embeddings": False})
    assert model.tied() == {}
    assert model.head().weight is dict(model.named_parameters())["lm_head.weight"]


def test_initial_weights_are_those_of_transformers_in_distribution(model: TinyForCausalLM) -> None:
    weights = dict(model.named_parameters())
    assert all((tensor == 1).all() for name, tensor in weights.items() if name.endswith("norm.weight"))
    for name, tensor in weights.items():
        if tensor.ndim == 2:
            assert abs(tensor.std().item() / 0.02 - 1) < 0.05, name
            assert abs(tensor.mean().item()) < 0.001, name


def test_initial_weights_follow_the_generator_alone(model: TinyForCausalLM) -> None:
    other = seeded(Tiny().build({}))
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, dict(other.named_parameters())[name])
    changed = dict(seeded(Tiny().build({}), seed=1).named_parameters())
    assert not torch.equal(changed["model.embed_tokens.weight"], model.model.embed_tokens.weight)


def test_documents_packed_together_do_not_see_each_other(model: TinyForCausalLM) -> None:
    alone = torch.cat([model(Batch.pack([doc])) for doc in DOCS])
    torch.testing.assert_close(model(Batch.pack(DOCS)), alone, rtol=1e-5, atol=1e-5)


def test_a_token_changes_nothing_before_it(model: TinyForCausalLM) -> None:
    before, after = model(Batch.pack([[1, 2, 3, 4, 5, 6]])), model(Batch.pack([[1, 2, 3, 9, 5, 6]]))
    torch.testing.assert_close(after[:3], before[:3], rtol=1e-6, atol=1e-6)
    assert (after[3:] - before[3:]).abs().amax(1).min() > 1e-4


def test_it_is_built_on_the_meta_device_and_filled_later(model: TinyForCausalLM) -> None:
    with torch.device("meta"):
        empty = Tiny().build({})
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    assert not list(empty.buffers())
    empty.load_state_dict(model.state_dict(), assign=True)
    torch.testing.assert_close(empty(Batch.pack(DOCS)), model(Batch.pack(DOCS)))


def test_blocks_are_where_the_model_says(model: TinyForCausalLM) -> None:
    assert len(model.layers) == model.num_layers == 2
    assert (model.num_kv_heads, model.head_dim) == (2, 16)


def test_a_key_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="hiden_size"):
        Tiny().full_config({"hiden_size": 8})


def test_its_own_small_config_is_small() -> None:
    family: ModelFamily = Tiny()
    model = family.build(family.full_config(family.tiny_config()))
    assert sum(parameter.numel() for parameter in model.parameters()) < 20_000
