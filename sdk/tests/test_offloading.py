"""What is offloaded, and that it comes back: with numpy's memory in the place of a host's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ptsdk.builtin.tiny import Tiny
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM, eager
from ptsdk.nn.linear_loss import linear_cross_entropy
from ptsdk.plan.meter import Meter
from ptsdk.train.compiling import Graphs, compile_blocks
from ptsdk.train.memory import checkpoint_activations
from ptsdk.train.offloading import offload_inputs

LAYERS, WIDTH, TOKENS = 5, 16, 24
SHAPE = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": 48}


class Host(saved_tensors_hooks):
    """Notes what was sent to it and fetched."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, ...]] = []
        self.fetched = 0
        super().__init__(self._send, self._fetch)

    def _send(self, tensor: Tensor) -> Any:
        self.sent.append(tuple(tensor.shape))
        return tensor.detach().numpy().copy()

    def _fetch(self, kept: Any) -> Tensor:
        self.fetched += 1
        return torch.from_numpy(kept).clone()


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def built() -> CausalLM:
    family = Tiny()
    model = family.build(family.full_config({**(family.config or {}), **SHAPE})).double()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        model.init_weight(name, parameter, generator)
    return model


def batches() -> Iterator[Batch]:
    for lengths in ((TOKENS,), (3, TOKENS - 3), (5, 6, TOKENS - 11)):
        yield Batch.pack([list(range(1, n + 1)) for n in lengths], [[True] * n for n in lengths])


def numbers(model: CausalLM, batch: Batch) -> list[Tensor]:
    loss = linear_cross_entropy(model(batch), model.head(), batch.labels)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("mode", ["full", "selective"])
def test_the_input_of_every_block_that_recomputes_goes_and_comes_back(mode: str, every: int, compiled: bool) -> None:
    plain, offloading, host = built(), built(), Host()
    for model in (plain, offloading):
        checkpoint_activations(model, mode, every)
        if compiled:
            compile_blocks(model, backend="aot_eager")
    offload_inputs(offloading, every, host)
    graphs = Graphs()
    for batch in batches():
        host.sent, host.fetched = [], 0
        expected, graphs_before = numbers(plain, batch), graphs.count()
        found = numbers(offloading, batch)
        assert all(torch.equal(mine, other) for mine, other in zip(found, expected, strict=True))
        assert host.sent == [(TOKENS, WIDTH)] * len(range(0, LAYERS, every))
        assert host.fetched == len(host.sent)
        assert graphs.count() <= graphs_before


@pytest.mark.parametrize(("every", "sent"), [(1, 2), (2, 1)])
def test_blocks_without_a_backward_send_nothing(every: int, sent: int) -> None:
    """Nothing trains below the last two of five; the input of the first of these needs no gradient, and is needed."""
    model, host = built(), Host()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("model.layers.3.", "model.layers.4.")))
    checkpoint_activations(model, "full", every)
    offload_inputs(model, every, host)
    model(next(batches())).sum().backward()
    assert len(host.sent) == host.fetched == sent


def test_a_host_may_keep_a_tensor() -> None:
    plain, model, batch = built(), built(), next(batches())
    for one in (plain, model):
        checkpoint_activations(one, "full")
    offload_inputs(model, 1, saved_tensors_hooks(lambda tensor: -tensor, lambda kept: -kept))
    assert all(
        torch.equal(mine, other) for mine, other in zip(numbers(model, batch), numbers(plain, batch), strict=True)
    )


def test_inputs_are_not_kept_on_the_device() -> None:
    """Between the passes every block's input is away, which without offloading is there."""
    batch, alive = next(batches()), []
    for host in (None, Host()):
        model = built()
        checkpoint_activations(model, "full")
        if host:
            offload_inputs(model, 1, host)
        with Meter() as meter:
            hidden_states = model(batch)
            alive.append(meter.live)
            hidden_states.sum().backward()
    assert alive[0] - alive[1] == LAYERS * TOKENS * WIDTH * 8


def test_a_model_without_gradients_sends_nothing() -> None:
    model, host = built(), Host()
    checkpoint_activations(model, "full")
    offload_inputs(model, 1, host)
    with torch.no_grad():
        model(next(batches()))
    model.eval()
    assert host.sent == []


def test_compiled_blocks_are_still_seen_to_be_compiled() -> None:
    model = built()
    checkpoint_activations(model, "full")
    compile_blocks(model, backend="aot_eager")
    offload_inputs(model, 1, Host())
    graphs = Graphs()
    with eager(model):
        model(next(batches()))
    assert graphs.count() == 0
