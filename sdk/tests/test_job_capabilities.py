"""Combinations that are refused from specs alone, and those that are not."""

from __future__ import annotations

from typing import Any

import pytest

from ptsdk.job.capabilities import impossible
from ptsdk.job.sections import TrainSection
from ptsdk.job.source import Keys
from ptsdk.job.wording import Fault
from ptsdk.plugins import Entry, Plugins, Record
from ptsdk.registry import Registry
from ptsdk.specs import DatasetSpec, LossSpec, MethodSpec, Spec


def entry(kind: str, spec: Spec) -> Entry:
    return Entry(kind, spec, "dist", "1")


def method(objective: Any = "token", **options: Any) -> Entry:
    return entry("method", MethodSpec("m", "x:M", objective=objective, **options))


def dataset(objective: Any = "token") -> Entry:
    return entry("dataset", DatasetSpec("d", "x:D", objective=objective))


def loss(objective: Any = "token", methods: tuple[str, ...] = ()) -> Entry:
    return entry("loss", LossSpec("l", "x:L", objective=objective, methods=methods))


def faults_of(
    entries: dict[Keys, Entry], packing: bool = False, validates: bool = True, streaming: bool = False, **train: Any
) -> list[Fault]:
    installed = Registry(Plugins((Record("dist", "1", 1, "loaded", None, tuple(entries.values())),)))
    return impossible(
        entries, TrainSection(**train), installed, packing=packing, validation=validates, streaming=streaming
    )


def judge(
    entries: dict[Keys, Entry], packing: bool = False, validates: bool = True, streaming: bool = False, **train: Any
) -> list[tuple[str, str]]:
    faults = faults_of(entries, packing, validates, streaming, **train)
    return [(".".join(map(str, fault.keys)), fault.message) for fault in faults]


OBJECTIVES = ("token", "preference", "binary", "policy")


@pytest.mark.parametrize("of_method", OBJECTIVES)
@pytest.mark.parametrize("of_data", OBJECTIVES)
@pytest.mark.parametrize("of_loss", OBJECTIVES)
def test_objectives_must_agree(of_method: str, of_data: str, of_loss: str) -> None:
    entries = {("method",): method(of_method), ("data", "train"): dataset(of_data), ("loss",): loss(of_loss)}
    expected = {"data.train"} if of_data != of_method else set()
    expected |= {"loss"} if of_loss != of_method else set()
    found = judge(entries)  # type: ignore[arg-type]
    assert {path for path, _ in found} == expected
    assert all(of_method in message and " m " in message for _, message in found)


def test_every_data_set_of_a_mixture_is_judged() -> None:
    entries: dict[Keys, Entry] = {
        ("method",): method(),
        ("data", "train", 0): dataset(),
        ("data", "train", 1): dataset("binary"),
        ("data", "validation"): dataset("policy"),
    }
    assert [path for path, _ in judge(entries)] == ["data.train.1", "data.validation"]


@pytest.mark.parametrize(("methods", "refused"), [((), False), (("m",), False), (("dist/m",), False), (("n",), True)])
def test_a_loss_may_be_for_some_methods_alone(methods: tuple[str, ...], refused: bool) -> None:
    found = judge({("method",): method(), ("loss",): loss(methods=methods)})
    assert [path for path, _ in found] == ["loss"] * refused


def test_requirements_on_packages() -> None:
    spec = Spec("q", "x:Q", requires=("no-such-dist-anywhere>=1", "pydantic>=2", "pydantic>=99"))
    found = judge({("quantizer",): entry("quantizer", spec)})
    assert [path for path, _ in found] == ["quantizer", "quantizer"]
    assert "no-such-dist-anywhere>=1" in found[0][1]
    assert "pydantic>=99" in found[1][1]


@pytest.mark.parametrize(
    ("requires", "met"),
    [
        ("adapter:lora", True),
        ("adapter:dist/lora", True),
        ("adapter:+peft", True),
        ("adapter:dora", False),
        ("adapter:+full", False),
        ("optimizer:lora", False),
        ("strategy:fsdp2", False),
    ],
)
def test_requirements_and_conflicts_between_components(requires: str, met: bool) -> None:
    adapter = entry("adapter", Spec("lora", "x:A", supports=frozenset({"peft"})))
    needing = entry("quantizer", Spec("q", "x:Q", requires=(requires,)))
    assert [path for path, _ in judge({("adapter",): adapter, ("quantizer",): needing})] == ["quantizer"] * (not met)
    refusing = entry("quantizer", Spec("q", "x:Q", conflicts=(requires,)))
    found = judge({("adapter",): adapter, ("quantizer",): refusing})
    assert [path for path, _ in found] == ["quantizer"] * met
    assert all("quantizer q" in message and "adapter lora" in message for _, message in found)


def test_what_would_fulfil_a_demand_is_named() -> None:
    """The installed ones that would, here those of the job itself under another kind's slot."""
    adapters = {("a", i): entry("adapter", Spec(n, "x:A", supports=frozenset({"s"}))) for i, n in enumerate("pq")}
    needing = entry("quantizer", Spec("n", "x:Q", requires=("adapter:+s",)))
    installed = Registry(Plugins((Record("dist", "1", 1, "loaded", None, (*adapters.values(), needing)),)))
    found = impossible({("quantizer",): needing}, None, installed, packing=False, validation=True, streaming=False)
    assert [fault.message for fault in found] == ["quantizer n needs an adapter that supports s in the same job"]
    assert found[0].hint == "set `adapter: p` or `adapter: q`"


def test_a_component_does_not_conflict_with_itself() -> None:
    mine = entry("logger", Spec("a", "x:A", conflicts=("logger:a",)))
    assert judge({("loggers", 0): mine}) == []
    assert len(judge({("loggers", 0): mine, ("loggers", 1): mine})) == 2


def test_epochs_of_a_stream_are_not_counted_beforehand() -> None:
    assert [path for path, _ in judge({}, streaming=True)] == ["train.steps"]
    assert judge({}, streaming=True, steps=3) == []


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_packing_is_for_documents(objective: str) -> None:
    found = judge({("method",): method(objective)}, packing=True)
    assert [path for path, _ in found] == ["data.packing"] * (objective != "token")


@pytest.mark.parametrize(
    ("train", "paths"),
    [
        ({}, []),
        ({"batch_size": 6, "micro_batch_size": 4}, ["train.micro_batch_size"]),
        ({"batch_size": 4, "micro_batch_size": 8}, ["train.micro_batch_size"]),
        ({"batch_size": 12}, []),
        ({"optimizer_in_backward": True, "clip_grad_norm": None}, []),
        ({"optimizer_in_backward": True}, ["train.optimizer_in_backward"]),
        ({"optimizer_in_backward": True, "batch_size": 16, "clip_grad_norm": None}, ["train.optimizer_in_backward"]),
        ({"optimizer_in_backward": True, "batch_size": 16}, ["train.optimizer_in_backward"] * 2),
        ({"batch_size": 12, "micro_batch_tokens": 7}, []),
        (
            {"optimizer_in_backward": True, "clip_grad_norm": None, "micro_batch_tokens": 10**6},
            ["train.optimizer_in_backward"],
        ),
        ({"activation_offloading": True}, ["train.activation_offloading"]),
        ({"activation_offloading": True, "activation_checkpointing": "full"}, []),
        ({"activation_checkpointing_every": 2}, ["train.activation_checkpointing_every"]),
        ({"activation_checkpointing_every": 2, "activation_checkpointing": "selective"}, []),
        ({"validate_every": 5}, ["train.validate_every"]),
        ({"compile": True}, []),
    ],
)
def test_the_train_section(train: dict[str, Any], paths: list[str]) -> None:
    assert [path for path, _ in judge({}, validates=False, **train)] == paths


@pytest.mark.parametrize("supports", [frozenset[str](), frozenset({"own-kernel"})])
def test_what_loss_can_be_compiled(supports: frozenset[str]) -> None:
    found = judge({("loss",): entry("loss", LossSpec("l", "x:L", supports=supports))}, compile={"loss": True})
    assert [path for path, _ in found] == ["train.compile.loss"] * len(supports)


@pytest.mark.parametrize(
    ("supports", "train", "reasons"),
    [
        (frozenset({"compiled-step"}), {}, []),
        (frozenset({"compiled-step"}), {"optimizer_in_backward": True, "clip_grad_norm": None}, ["by itself"]),
        (frozenset[str](), {}, ["not made to be compiled"]),
    ],
)
def test_what_optimizer_can_be_compiled(supports: frozenset[str], train: dict[str, Any], reasons: list[str]) -> None:
    optimizer = entry("optimizer", Spec("o", "x:O", supports=supports))
    found = judge({("optimizer",): optimizer}, compile={"optimizer": True}, **train)
    assert [path for path, _ in found] == ["train.compile.optimizer"] * len(reasons)
    assert all(reason in message for reason, (_, message) in zip(reasons, found, strict=True))
