"""Fake quantisation against torchao used directly, and the quantised model against what was trained."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.qat import FakeQuantizedLinear, IntxFakeQuantizeConfig

from ptsdk.builtin.tiny import Tiny
from ptsdk.checkpoint.weights import build_on_meta, fill, initial_tensors
from ptsdk.errors import RunError, UserError
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM, block_linears
from ptsdk_qat.quantizer import Qat, SchemeName

SCHEMES: tuple[SchemeName, ...] = ("int8-int4", "int4", "int8")
BATCH = Batch.pack([[1, 2, 3, 4, 5], [6, 7, 8]])


def build(quantizer: Qat | None) -> CausalLM:
    family = Tiny(config={"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128})
    model = build_on_meta(family, family.full_config(family.config or {}), torch.float32)
    if quantizer:
        quantizer.prepare(model)
    names = [name for name, _ in model.named_parameters()]
    fill(model, initial_tensors(model, names, 0), torch.device("cpu"), torch.float32)
    return model


def quantised_by_torchao(scheme: SchemeName, group_size: int) -> CausalLM:
    """The same weights, quantised after the fact."""
    model = build(None)
    config: Any = {
        "int8": IntxWeightOnlyConfig(torch.int8, PerAxis(0)),
        "int4": IntxWeightOnlyConfig(torch.int4, PerGroup(group_size)),
        "int8-int4": Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(group_size)),
    }[scheme]
    layers = block_linears(model)
    quantize_(model, config, lambda _, name: name in layers)
    return model


def logits(model: CausalLM) -> Tensor:
    with torch.no_grad():
        return model.head().logits(model(BATCH))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_linear_layers_of_the_blocks_are_swapped_and_nothing_is_renamed(scheme: SchemeName) -> None:
    plain, model = build(None), build(Qat(scheme=scheme))
    for name, module in model.named_modules():
        inside = name.startswith(f"{model.layers_path}.")
        assert isinstance(module, FakeQuantizedLinear) == (isinstance(module, nn.Linear) and inside), name
    ours, theirs = dict(model.named_parameters()), dict(plain.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_training_computes_what_torchao_quantised_will(scheme: SchemeName) -> None:
    prepared = logits(build(Qat(scheme=scheme)))
    torch.testing.assert_close(prepared, logits(quantised_by_torchao(scheme, 32)), rtol=1e-5, atol=1e-5)
    assert (prepared - logits(build(None))).abs().max() > 1e-4


@pytest.mark.parametrize("scheme", SCHEMES)
def test_conversion_keeps_what_was_trained(scheme: SchemeName) -> None:
    quantizer = Qat(scheme=scheme, group_size=None if scheme == "int8" else 64)
    model = build(quantizer)
    before = logits(model)
    quantizer.convert(model)
    assert not any(isinstance(module, FakeQuantizedLinear) for module in model.modules())
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(model), logits(quantised_by_torchao(scheme, 64)), rtol=0, atol=0)


def test_forward_and_gradients_of_a_layer_are_those_of_torchao() -> None:
    base = nn.Linear(64, 32)
    activations = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    weights = IntxFakeQuantizeConfig(torch.int4, group_size=32, is_symmetric=True)
    theirs = FakeQuantizedLinear.from_linear(copy.deepcopy(base), activations, weights)
    model = build(Qat())
    ours = next(m for m in model.modules() if isinstance(m, FakeQuantizedLinear))
    ours.weight, ours.bias = nn.Parameter(base.weight.detach().clone()), nn.Parameter(base.bias.detach().clone())  # type: ignore[union-attr]
    x, grad = torch.randn(5, 64), torch.randn(5, 32)
    results = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        y.backward(grad)
        results.append((y, leaf.grad, layer.weight.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_groups_that_do_not_fill_a_row_are_refused_by_name() -> None:
    with pytest.raises(UserError) as caught:
        build(Qat(group_size=48))
    assert "down_proj" in str(caught.value) and "48" in str(caught.value)


def test_a_scale_a_row_has_no_groups() -> None:
    build(Qat(scheme="int8"))
    with pytest.raises(ValidationError, match="one scale a row"):
        Qat(scheme="int8", group_size=32)
    assert Qat().groups == 32 and Qat(group_size=64).groups == 64


def test_there_must_be_something_to_convert() -> None:
    with pytest.raises(RunError, match="not prepared"):
        Qat().convert(build(None))
