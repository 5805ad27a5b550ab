"""Run in two processes by test_two.py: the strategy beside the same model without it, in plain torch.

Each process holds both, so each asserts by itself; one that fails ends with a traceback.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ptsdk.builtin.tiny import Tiny
from ptsdk.checkpoint.weights import build_on_meta, initial_tensors
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.linear_loss import linear_cross_entropy
from ptsdk.train.memory import checkpoint_activations
from ptsdk_fsdp2.shards import rows_of
from ptsdk_fsdp2.strategy import Fsdp2

SHAPE = {"vocab_size": 37, "hidden_size": 24, "intermediate_size": 31, "num_attention_heads": 2, "head_dim": 6}
"""37 and 31 rows do not divide by two."""
FIRST = [[[5, 6, 7, 8, 9, 30, 2], [1, 3]], [[25, 4, 11, 12]]]
SECOND = [[[3, 2, 1, 7]], [[9, 9, 8, 36, 35], [14, 2, 2]]]
"""Two micro-batches, each as (what process 0 reads, what process 1 reads)."""
CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


def batch(documents: list[list[int]]) -> Batch:
    return Batch.pack(documents, [[True] * len(document) for document in documents])


def loss(model: CausalLM, documents: list[list[int]]) -> Tensor:
    given = batch(documents)
    return linear_cross_entropy(model(given), model.head(), given.labels)


def both(tied: bool = True, dtype: torch.dtype = torch.float32, **options: bool) -> tuple[Fsdp2, CausalLM, CausalLM]:
    """(the strategy, its model, the plain model of the same weights)."""
    family, strategy = Tiny(), Fsdp2(**options)
    world = strategy.setup()
    config = family.full_config({**SHAPE, "tie_word_embeddings": tied})
    model = build_on_meta(family, config, dtype)
    plain = copy.deepcopy(model).to_empty(device="cpu")
    tensors = initial_tensors(model, [name for name, _ in model.named_parameters()], seed=1)
    plain.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()})
    model = strategy.wrap(model, world)
    strategy.load(model, tensors, world, dtype)
    return strategy, model, plain


def plain_gradients(plain: CausalLM, *micro_batches: list[list[list[int]]]) -> None:
    for documents in itertools.chain(*micro_batches):
        loss(plain, documents).backward()


def assert_same(model: CausalLM, plain: CausalLM, what: Callable[[torch.nn.Parameter], Tensor | None]) -> None:
    theirs = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor), name
        ours = what(parameter)
        assert isinstance(ours, DTensor), name
        assert ours.to_local().shape[0] == len(rows_of(theirs[name], dist.get_rank(), 2)), name
        torch.testing.assert_close(ours.full_tensor(), what(theirs[name]), rtol=1e-5, atol=1e-6, msg=name)


@check
def gradients_are_sums_over_processes_and_micro_batches() -> None:
    for tied, reshard, recompute in itertools.product((True, False), (True, False), ("none", "full", "selective")):
        strategy, model, plain = both(tied, reshard_after_forward=reshard)
        checkpoint_activations(model, recompute)
        model.train()
        for micro_batch in (FIRST, SECOND):
            loss(model, micro_batch[dist.get_rank()]).backward()
        plain_gradients(plain, FIRST, SECOND)
        assert_same(model, plain, lambda p: p.grad)
        norm = strategy.grad_norm(list(model.parameters()))
        theirs = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters()])  # type: ignore[misc]
        torch.testing.assert_close(norm, theirs, rtol=1e-6, atol=0)


@check
def the_head_is_whole_before_between_and_after_forwards() -> None:
    for tied in (True, False):
        _, model, plain = both(tied)
        mine = batch(FIRST[dist.get_rank()])
        head = model.head()  # before any forward
        assert type(head.weight) is torch.nn.Parameter and head.weight.equal(plain.head().weight)
        linear_cross_entropy(model(mine), head, mine.labels).backward()
        plain_gradients(plain, FIRST)
        assert_same(model, plain, lambda p: p.grad)
        with torch.no_grad():
            loss(model, SECOND[0])
        assert model.head().weight.equal(plain.head().weight)


@check
def several_forwards_go_before_one_backward() -> None:
    """As preference methods do, with a pass of the reference between."""
    _, model, plain = both(tied=False)
    rank = dist.get_rank()
    total = loss(model, FIRST[rank])
    with torch.no_grad():
        loss(model, SECOND[1 - rank])
    (total + loss(model, SECOND[rank])).backward()
    plain_gradients(plain, FIRST, SECOND)
    assert_same(model, plain, lambda p: p.grad)


@check
def a_filler_keeps_step_and_adds_nothing() -> None:
    _, model, plain = both()
    output = loss(model, FIRST[dist.get_rank()])
    (output if dist.get_rank() == 0 else output * 0).backward()
    plain_gradients(plain, FIRST[:1])
    assert_same(model, plain, lambda p: p.grad)


@check
def a_block_without_anything_that_trains_is_no_hindrance() -> None:
    _, model, plain = both()
    for each in (model, plain):
        each.requires_grad_(False)
        each.get_parameter("model.layers.1.mlp.down_proj.weight").requires_grad_(True)
    loss(model, FIRST[dist.get_rank()]).backward()
    plain_gradients(plain, FIRST)
    trained = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert trained == ["model.layers.1.mlp.down_proj.weight"]
    ours, theirs = (each.get_parameter(trained[0]).grad for each in (model, plain))
    assert isinstance(ours, DTensor)
    torch.testing.assert_close(ours.full_tensor(), theirs, rtol=1e-5, atol=1e-6)


@check
def bfloat16_gradients_are_added_in_float32() -> None:
    _, model, _ = both(dtype=torch.bfloat16)
    loss(model, FIRST[dist.get_rank()]).backward()
    # In float32 the sum of two bfloat16 gradients is exact, and rounded once.
    parts: list[Mapping[str, Tensor]] = []
    for documents in FIRST:
        _, _, plain = both(dtype=torch.bfloat16)
        loss(plain, documents).backward()
        parts.append({name: p.grad.float() for name, p in plain.named_parameters() if p.grad is not None})
    for name, parameter in model.named_parameters():
        assert isinstance(parameter.grad, DTensor)
        assert parameter.grad.full_tensor().equal((parts[0][name] + parts[1][name]).bfloat16()), name


@check
def unsharded_forwards_need_nobody() -> None:
    strategy, model, plain = both(tied=False)
    with torch.no_grad(), strategy.unsharded(model):
        for _ in range(1 + 3 * dist.get_rank()):  # a collective in here would wait for ever
            assert model(batch(FIRST[0])).equal(plain(batch(FIRST[0])))
            assert model.head().weight.equal(plain.head().weight)
    loss(model, FIRST[dist.get_rank()]).backward()
    plain_gradients(plain, FIRST)
    assert_same(model, plain, lambda p: p.grad)


@check
def blocks_are_given_up_after_their_forward() -> None:
    for reshard in (True, False):
        strategy, model, _ = both(reshard_after_forward=reshard)
        with strategy.unsharded(model):
            pass
        output = loss(model, FIRST[0])
        kinds = {isinstance(parameter, DTensor) for block in model.layers for parameter in block.parameters()}
        assert kinds == {reshard}
        output.backward()
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())


@check
def what_is_saved_is_whole_and_comes_back() -> None:
    strategy, model, plain = both()
    optimizers = [torch.optim.AdamW(each.parameters(), lr=0.1, fused=True) for each in (model, plain)]
    for _ in range(2):
        loss(model, FIRST[dist.get_rank()]).backward()
        plain_gradients(plain, FIRST)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        model(batch(FIRST[0]))  # leaves the root whole, as a validation does
    names = [name for name, _ in model.named_parameters()]
    weights, state = strategy.gather(model, names), strategy.gather_optimizer(model, optimizers[0])
    if dist.get_rank() == 1:
        assert weights == {} and state == {}
    else:
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(weights[name], parameter.detach(), rtol=1e-4, atol=1e-5)
            theirs = optimizers[1].state[parameter]
            assert state["state"][name].keys() == theirs.keys()
            for key, value in theirs.items():
                torch.testing.assert_close(state["state"][name][key], value, rtol=1e-4, atol=1e-6)
    weights, state = strategy.broadcast(weights), strategy.broadcast(state)
    again_strategy, again, _ = both()
    again_strategy.load(again, weights, again_strategy.setup(), torch.float32)
    optimizer = torch.optim.AdamW(again.parameters(), lr=0.1, fused=True)
    again_strategy.load_optimizer(again, optimizer, state)
    for (name, one), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert isinstance(one, DTensor) and isinstance(other, DTensor)
        assert one.to_local().equal(other.to_local()), name
        for key, value in optimizers[0].state[one].items():
            back = optimizer.state[other][key]
            assert type(back) is type(value) and back.device == value.device
            if isinstance(value, DTensor):
                value, back = value.to_local(), back.to_local()
            assert value.equal(back), (name, key)


@check
def processes_exchange() -> None:
    strategy, rank = Fsdp2(), dist.get_rank()
    assert strategy.collect({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert strategy.broadcast(("from", rank)) == ("from", 0)
    values = torch.tensor([1 / 3, rank], dtype=torch.float64)
    assert strategy.all_reduce(values).tolist() == [2 * (1 / 3), 1.0]
    assert values.tolist() == [1 / 3, rank]
    strategy.barrier()


if __name__ == "__main__":
    Fsdp2().setup()
    for function in CHECKS:
        function()
        if dist.get_rank() == 0:
            print(function.__name__, flush=True)
    Fsdp2().close()
