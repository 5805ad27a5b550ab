from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import Trainer

from ptsdk.builtin.optimizers import SGD, Adafactor, AdamW, Muon
from ptsdk.errors import UserError

ALL = [
    AdamW(lr=1e-2, weight_decay=0.1),
    SGD(lr=1e-2, momentum=0.9, nesterov=True, weight_decay=0.1),
    Adafactor(lr=1e-2, weight_decay=0.1),
    Muon(lr=1e-2, weight_decay=0.1),
]


class Net(nn.Module):
    """Every kind of parameter that a decoder has, under such names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(11, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.norm = nn.LayerNorm(8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = x + layer(x)
        return self.norm(x) @ self.embed_tokens.weight.T


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def backward(model: Net, step: int) -> None:
    tokens = torch.randint(11, (5,), generator=torch.Generator().manual_seed(step))
    torch.nn.functional.cross_entropy(model(tokens), tokens.roll(-1)).backward()


def train(model: Net, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        backward(model, step)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * (1 - step / 20)
        optimizer.step()
        optimizer.zero_grad()


def assert_close(model: Net, reference: Net, tolerance: float = 1e-6) -> None:
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, theirs[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def split(model: Net) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    return [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim == 1]


@pytest.mark.parametrize(
    ("component", "reference"),
    [
        (ALL[0], lambda groups: torch.optim.AdamW(groups, lr=1e-2, foreach=True)),
        (ALL[1], lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=True, foreach=True)),
        (ALL[2], lambda groups: torch.optim.Adafactor(groups, lr=1e-2, foreach=False)),
    ],
    ids=["adamw", "sgd", "adafactor"],
)
def test_as_unfused_torch_with_decay_on_matrices_alone(component, reference):
    model, other = net(), net()
    matrices, vectors = split(other)
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    train(model, component.build(dict(model.named_parameters())), range(5))
    train(other, reference(groups), range(5))
    assert_close(model, other)


@pytest.mark.parametrize("implementation", ["auto", "fused", "foreach", "loop"])
@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_every_implementation_takes_the_same_steps(kind, implementation):
    model, other = net(), net()
    optimizer = kind(lr=1e-2, weight_decay=0.1, implementation=implementation).build(dict(model.named_parameters()))
    is_fused = implementation in ("auto", "fused")
    flags = {(bool(group["fused"]), bool(group["foreach"])) for group in optimizer.param_groups}
    assert flags == {(is_fused, implementation == "foreach")}
    train(model, optimizer, range(5))
    reference = kind(lr=1e-2, weight_decay=0.1, implementation="loop").build(dict(other.named_parameters()))
    train(other, reference, range(5))
    assert_close(model, other)


def test_a_fused_kernel_that_does_not_exist_is_refused():
    weights = dict(net().to("meta").named_parameters())
    assert not AdamW().build(weights).param_groups[0]["fused"]
    with pytest.raises(UserError, match="no fused kernel"):
        AdamW(implementation="fused").build(weights)


def test_decay_groups_are_those_of_transformers():
    class Bare(Trainer):
        def __init__(self) -> None:
            pass

    model = net()
    theirs = set(Bare().get_decay_parameter_names(model))
    names = {id(p): name for name, p in model.named_parameters()}
    group = ALL[0].build(dict(model.named_parameters())).param_groups[0]
    assert group["weight_decay"] == 0.1
    assert {names[id(p)] for p in group["params"]} == theirs


def test_muon_takes_the_matrices_of_blocks_and_leaves_the_rest_to_adamw():
    model, other = net(), net()
    optimizer = Muon(lr=1e-2, weight_decay=0.1).build(dict(model.named_parameters()))
    matrices = [layer.weight for layer in other.layers]
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    biases = [layer.bias for layer in other.layers]
    rest = [
        {"params": [other.embed_tokens.weight], "weight_decay": 0.1},
        {"params": [*biases, *other.norm.parameters()], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(rest, lr=1e-2)
    for step in range(5):
        backward(model, step)
        backward(other, step)
        for each in (optimizer, muon, adamw):
            for group in each.param_groups:
                group["lr"] = 1e-2 * (1 - step / 5)
            each.step()
            each.zero_grad()
    assert_close(model, other)


def test_muon_without_matrices_or_without_anything_else():
    model = net()
    for keep in ("layers.0.weight", "norm.weight"):
        optimizer = Muon(lr=1e-2).build({keep: model.get_parameter(keep)})
        backward(model, 0)
        before = model.get_parameter(keep).detach().clone()
        optimizer.step()
        assert not torch.equal(before, model.get_parameter(keep))


def test_a_closure_is_called_once():
    model = net()
    optimizer = ALL[3].build(dict(model.named_parameters()))
    calls = []
    assert optimizer.step(lambda: calls.append(0) or 7.0) == 7.0
    assert len(calls) == 1


@pytest.mark.parametrize("component", ALL, ids=["adamw", "sgd", "adafactor", "muon"])
@pytest.mark.parametrize("by", ["state_dict", "name"])
def test_a_restored_optimizer_goes_on_bit_for_bit(component, by):
    straight = net()
    train(straight, component.build(dict(straight.named_parameters())), range(6))

    first = net()
    optimizer = component.build(dict(first.named_parameters()))
    train(first, optimizer, range(3))
    resumed = net(1)
    resumed.load_state_dict(first.state_dict())
    again = component.build(dict(resumed.named_parameters()))
    if by == "state_dict":
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        for name, parameter in first.named_parameters():
            state = {key: copy.deepcopy(value) for key, value in optimizer.state[parameter].items()}
            assert all(isinstance(value, torch.Tensor | int | float | str) for value in state.values())
            again.state[resumed.get_parameter(name)] = state
    train(resumed, again, range(3, 6))
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


def test_impossible_options_are_refused():
    with pytest.raises(ValidationError, match="nesterov needs momentum"):
        SGD(nesterov=True)
    with pytest.raises(ValidationError, match="weight_decay"):
        AdamW(weight_decay=-1)
    for kind in (AdamW, Muon):
        with pytest.raises(ValidationError, match="betas"):
            kind(betas=(0.9, 1.0))


def test_nothing_is_fused_on_a_device_without_kernels():
    with torch.device("meta"):
        model = Net()
    assert not AdamW().build(dict(model.named_parameters())).defaults["fused"]
    assert AdamW().build(dict(net().named_parameters())).defaults["fused"]
