"""The JSON Schema of the job file says yes to sound jobs and no to mistakes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from ptsdk.job.schema import job_schema
from ptsdk.job.source import parse
from ptsdk.plugins import DiscoveryOptions, Entry, Plugins, Record, scan
from ptsdk.registry import Registry
from ptsdk.specs import Spec

SOUND = """\
api: 1
model: {use: tiny, config: {hidden_size: 32}}
data: {train: {use: instruct, path: train.jsonl}}
method: sft
output_dir: runs/demo
"""


@pytest.fixture(scope="module")
def core() -> Plugins:
    return scan(DiscoveryOptions(safe=True))


@pytest.fixture(scope="module")
def schema(core: Plugins) -> dict[str, Any]:
    document, warnings = job_schema(Registry(core))
    assert [w for w in warnings if "rollout" not in w] == []
    Draft202012Validator.check_schema(document)
    return json.loads(json.dumps(document))  # type: ignore[no-any-return]


def mistakes(schema: dict[str, Any], text: str) -> list[str]:
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(parse(text, "x")[0])]


@pytest.mark.parametrize(
    "more",
    [
        "",
        "tokenizer: bytes",
        "tokenizer: {path: x}",
        "tokenizer: {use: ptsdk/bytes}",
        "loss: cross_entropy",
        "optimizer: {use: adamw, lr: 1e-5, betas: [0.9, 0.95]}",
        "optimizer: {lr: 1e-5}",
        "optimizer: {use: adamw, lr: '${env:LR}'}",
        "optimizer: ./mine.py:Mine",
        "optimizer: {use: ./mine.py:Mine, anything: 1}",
        "optimizer: null",
        "quantizer: null",
        "schedule: {use: cosine, warmup: 0.1}",
        "loggers: jsonl",
        "loggers: [jsonl, {use: console}]",
        "callbacks: [{use: early_stopping, patience: 5}]",
        "train: {steps: 5, clip_grad_norm: null, compile: true, activation_checkpointing: full}",
    ],
)
def test_sound_jobs(schema: dict[str, Any], more: str) -> None:
    assert mistakes(schema, SOUND + more) == []


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("api: 1", "api: 2", "$.api"),
        ("method: sft", "method: stf", "$.method"),
        ("method: sft", "method: {use: sft, x: 1}", "$.method"),
        ("method: sft", "method: {}", "$.method"),
        ("method: sft\n", "", "$"),
        ("output_dir", "outputdir", "$"),
        ("use: instruct", "use: instruc", "$.data.train"),
        ("path: train.jsonl", "pth: train.jsonl", "$.data.train"),
        ("{use: instruct, path: train.jsonl}", "instruct", "$.data.train"),
        ("use: tiny, config: {hidden_size: 32}", "use: tiny", "$.model"),
        ("use: tiny, config: {hidden_size: 32}", "dtype: float32", "$.model"),
        ("config: {hidden_size: 32}", "config: {}, path: x", "$.model"),
        ("api: 1", "api: 1\noptimizer: {use: adamw, lrr: 1}", "$.optimizer"),
        ("api: 1", "api: 1\noptimizer: {use: adamw, lr: x}", "$.optimizer"),
        ("api: 1", "api: 1\noptimizer: {lrr: 1}", "$.optimizer"),
        ("api: 1", "api: 1\ntrain: {sed: 1}", "$.train"),
        ("api: 1", "api: 1\ntrain: {steps: 0}", "$.train.steps"),
        ("api: 1", "api: 1\ntrain: {activation_checkpointing: all}", "$.train.activation_checkpointing"),
        ("api: 1", "api: 1\ncallbacks: [early_stoping]", "$.callbacks"),
    ],
)
def test_mistakes(schema: dict[str, Any], old: str, new: str, path: str) -> None:
    assert old in SOUND
    found = mistakes(schema, SOUND.replace(old, new, 1))
    assert path in found


def test_every_option_has_a_description(schema: dict[str, Any]) -> None:
    assert all("description" in section for section in schema["properties"].values())
    for name in ("DataSection", "TrainSection"):
        bare = [key for key, option in schema["$defs"][name]["properties"].items() if "description" not in option]
        assert bare == []


def test_installed_components_and_no_others_are_in_it(core: Plugins) -> None:
    def names(plugins: Plugins) -> set[str]:
        return {key for key in job_schema(Registry(plugins))[0]["$defs"] if key.startswith("optimizer.")}

    entry = Entry("optimizer", Spec("mine", "ptsdk.builtin.optimizers:SGD"), "ptsdk-mine", "1")
    more = Plugins((*core.records, Record("ptsdk-mine", "1", 1, "loaded", None, (entry,))))
    assert names(more) - names(core) == {"optimizer.ptsdk-mine.mine"}


def test_a_component_that_does_not_import_is_there_by_name(core: Plugins) -> None:
    entry = Entry("optimizer", Spec("mine", "no_such_module:SGD"), "ptsdk-mine", "1")
    more = Plugins((*core.records, Record("ptsdk-mine", "1", 1, "loaded", None, (entry,))))
    document, warnings = job_schema(Registry(more))
    assert any("ptsdk-mine/mine" in warning for warning in warnings)
    assert mistakes(document, SOUND + "optimizer: {use: mine, lr: 1}") == []
    assert mistakes(document, SOUND + "optimizer: {use: mime, lr: 1}") == ["$.optimizer"]


def test_a_name_of_two_dists_must_be_qualified(core: Plugins) -> None:
    entry = Entry("optimizer", Spec("adamw", "ptsdk.builtin.optimizers:SGD"), "ptsdk-mine", "1")
    more = Plugins((*core.records, Record("ptsdk-mine", "1", 1, "loaded", None, (entry,))))
    document, _ = job_schema(Registry(more))
    assert mistakes(document, SOUND + "optimizer: adamw") == ["$.optimizer"]
    assert mistakes(document, SOUND + "optimizer: ptsdk-mine/adamw") == []
