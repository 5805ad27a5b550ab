"""The low-rank adapters against PEFT on the same Llama: outputs, gradients, merges, files both ways."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from ptsdk.builtin.optimizers import AdamW
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk_llama.model import Llama
from ptsdk_lora.adapter import Dora, Lora, LowRank, RsLora

CONFIG: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 48, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True, "max_position_embeddings": 64,
    "pad_token_id": None,
}  # fmt: skip
PREFIX = "base_model.model."
TOKENS = torch.randint(61, (23,), generator=torch.Generator().manual_seed(5))
NAMES = ("lora", "rslora", "dora")
ADAPTERS: dict[str, LowRank] = {
    "lora": Lora(rank=4, alpha=6),
    "rslora": RsLora(rank=9, alpha=5, targets=("q_proj", "layers.1.mlp.down_proj")),
    "dora": Dora(rank=4, alpha=6, targets=r".*\.(k_proj|o_proj|layers\.0\.mlp\.up_proj)"),
}
PEFT_OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "lora_alpha": 6, "target_modules": "all-linear"},
    "rslora": {"r": 9, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "layers.1.mlp.down_proj"]},
    "dora": {
        "r": 4,
        "lora_alpha": 6,
        "use_dora": True,
        "target_modules": r".*\.(k_proj|o_proj|layers\.0\.mlp\.up_proj)",
    },
}


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ours(theirs: Any) -> CausalLM:
    family = Llama(config=CONFIG)
    model = family.build(family.full_config(CONFIG)).eval()
    model.load_state_dict(theirs.state_dict())
    return model


def perturb(named: Iterator[tuple[str, Tensor]]) -> None:
    """Values far from the start, where the update and every magnitude matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(named):
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def with_peft(theirs: Any, name: str, **options: Any) -> Any:
    config = peft.LoraConfig(task_type="CAUSAL_LM", **PEFT_OPTIONS[name], **options)
    model = peft.get_peft_model(copy.deepcopy(theirs), config)
    perturb(model.named_parameters())
    return model.eval()


def adapted(theirs: Any, adapter: LowRank) -> CausalLM:
    model = ours(theirs)
    adapter.apply(model)
    adapter.init(model, 0)
    perturb(model.named_parameters())
    return model


def load(theirs: Any, folder: Path, adapter: LowRank | None = None) -> tuple[LowRank, CausalLM]:
    adapter = adapter or LowRank.from_peft(json.loads((folder / "adapter_config.json").read_text()))
    model = ours(theirs)
    adapter.apply(model)
    model.load_state_dict(adapter.load(folder, model), strict=False)
    return adapter, model


def our_logits(model: CausalLM) -> Tensor:
    batch = Batch.pack([TOKENS.tolist()])
    return model.head().logits(model(batch))


def their_logits(model: Any) -> Tensor:
    return model(TOKENS[None]).logits[0]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)


def plain(name: str) -> str:
    """PEFT's name of a live parameter as it stands in its files, without the prefix."""
    return name.removeprefix(PREFIX).replace(".default.weight", ".weight").replace("vector.weight", "vector")


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_of_peft_computes_the_same_here(name: str, theirs: Any, tmp_path: Path) -> None:
    reference = with_peft(theirs, name)
    reference.save_pretrained(tmp_path)
    adapter, model = load(theirs, tmp_path)
    assert type(adapter) is type(ADAPTERS[name])
    assert not torch.allclose(their_logits(theirs), their_logits(reference), atol=1e-2)
    close(our_logits(model), their_logits(reference))

    seed = torch.randn(len(TOKENS), 61, generator=torch.Generator().manual_seed(2))
    (our_logits(model) * seed).sum().backward()
    (their_logits(reference) * seed).sum().backward()
    gradients = {plain(n): p.grad for n, p in reference.named_parameters() if p.requires_grad}
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == gradients.keys()
    for parameter_name in trainable:
        close(model.get_parameter(parameter_name).grad, gradients[parameter_name])
    assert all(p.grad is None for n, p in model.named_parameters() if n not in trainable)


@pytest.mark.parametrize("name", NAMES)
def test_our_adapter_computes_the_same_in_peft(name: str, theirs: Any, tmp_path: Path) -> None:
    adapter = ADAPTERS[name]
    model = adapted(theirs, adapter)
    own = {n: p.detach() for n, p in model.named_parameters() if adapter.own(n)}
    base = str(tmp_path / "base")
    theirs.config.save_pretrained(base)
    adapter.save(own, tmp_path / "ours", base)
    reference = peft.PeftModel.from_pretrained(copy.deepcopy(theirs), tmp_path / "ours").eval()
    close(our_logits(model), their_logits(reference))

    reference.save_pretrained(tmp_path / "again")
    saved, again = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("ours", "again"))
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[key], again[key]) for key in saved)
    mine, peft_made = (json.loads((tmp_path / f / "adapter_config.json").read_text()) for f in ("ours", "again"))
    assert {key: peft_made[key] for key in mine} == {**mine, "target_modules": peft_made["target_modules"]}
    assert mine["base_model_name_or_path"] == base


@pytest.mark.parametrize("name", NAMES)
def test_merged_weights_are_those_of_peft(name: str, theirs: Any, tmp_path: Path) -> None:
    reference = with_peft(theirs, name)
    reference.save_pretrained(tmp_path)
    adapter, model = load(theirs, tmp_path)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    merged = adapter.merged(model)
    expected = reference.merge_and_unload().state_dict()
    assert merged.keys() == expected.keys()
    for key, tensor in merged.items():
        close(tensor, expected[key])
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    fresh = ours(theirs)
    fresh.load_state_dict(merged)
    close(our_logits(fresh), our_logits(model))


@pytest.mark.parametrize("name", NAMES)
def test_disabled_is_the_base_and_back(name: str, theirs: Any) -> None:
    adapter = ADAPTERS[name]
    model = adapted(theirs, adapter)
    with_adapter = our_logits(model)
    with adapter.disabled(model):
        with adapter.disabled(model):
            assert torch.equal(our_logits(model), our_logits(ours(theirs)))
        assert torch.equal(our_logits(model), our_logits(ours(theirs)))
    assert torch.equal(our_logits(model), with_adapter)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_draws_what_peft_draws(name: str, theirs: Any, tmp_path: Path) -> None:
    reference = with_peft(theirs, name, lora_dropout=0.4)
    reference.save_pretrained(tmp_path)
    adapter, model = load(theirs, tmp_path)
    assert adapter.dropout == 0.4
    torch.manual_seed(3)
    expected = their_logits(reference.train())
    torch.manual_seed(3)
    close(our_logits(model.train()), expected)
    close(our_logits(model.eval()), their_logits(reference.eval()))
    assert not torch.allclose(our_logits(model), expected, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_adapter_is_the_base_and_starts_as_in_peft(name: str, theirs: Any) -> None:
    model = ours(theirs)
    ADAPTERS[name].apply(model)
    ADAPTERS[name].init(model, 0)
    close(our_logits(model), their_logits(theirs))
    config = peft.LoraConfig(task_type="CAUSAL_LM", **PEFT_OPTIONS[name])
    reference = peft.get_peft_model(copy.deepcopy(theirs), config)
    start = {plain(n): p.detach() for n, p in reference.named_parameters() if p.requires_grad}
    for key, expected in start.items():
        value = model.get_parameter(key).detach()
        if "lora_A" in key:
            bound = value.shape[1] ** -0.5
            assert value.abs().max() <= bound
            assert value.std() == pytest.approx(float(expected.std()), rel=0.2)
        else:
            close(value, expected)


def test_dora_with_rslora_scaling_keeps_its_scaling(theirs: Any, tmp_path: Path) -> None:
    reference = with_peft(theirs, "dora", use_rslora=True)
    reference.save_pretrained(tmp_path)
    _, model = load(theirs, tmp_path)
    close(our_logits(model), their_logits(reference))


@pytest.mark.parametrize("name", NAMES)
def test_three_steps_of_adamw_go_where_peft_goes(name: str, theirs: Any, tmp_path: Path) -> None:
    reference = with_peft(theirs, name)
    reference.save_pretrained(tmp_path)
    _, model = load(theirs, tmp_path)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = AdamW(lr=1e-2).build(trainable)
    other = torch.optim.AdamW([p for p in reference.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        for logits, each in ((our_logits(model), optimizer), (their_logits(reference), other)):
            each.zero_grad()
            torch.nn.functional.cross_entropy(logits[:-1], TOKENS[1:]).backward()
            each.step()
    torch.testing.assert_close(our_logits(model), their_logits(reference), rtol=1e-3, atol=1e-3)
