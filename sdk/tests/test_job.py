"""load_job: a sound job in full, and every fault of an unsound one at its place."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ptsdk.builtin.datasets import Instruct
from ptsdk.builtin.optimizers import SGD, AdamW
from ptsdk.builtin.tiny import Tiny
from ptsdk.contracts.component import record
from ptsdk.errors import Problem, UserError
from ptsdk.job import Job, load_job, make_job
from ptsdk.job.sections import default_micro_batch
from ptsdk.plugins import DiscoveryOptions, scan
from ptsdk.registry import Registry

TEXT = """\
api: 1
model: {use: tiny, config: {hidden_size: 32}}
tokenizer: {use: bytes}
data:
  train: {use: instruct, path: train.jsonl}
  max_length: 96
method: sft
optimizer:
  use: adamw
  lr: 1e-2
loggers: [jsonl]
train:
  steps: 6
  batch_size: 8
output_dir: runs/demo
"""

Load = Callable[..., Job]


@pytest.fixture(scope="module")
def registry() -> Registry:
    """Core as if nothing else were installed, whatever is."""
    plugins = scan(DiscoveryOptions(safe=True))
    return Registry(replace(plugins, records=plugins.records[:1]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    return tmp_path


@pytest.fixture
def load(folder: Path, registry: Registry) -> Load:
    def load(text: str = TEXT, *overrides: str) -> Job:
        path = folder / "job.yaml"
        path.write_text(text)
        return load_job(path, overrides, registry)

    return load


def faults(load: Load, text: str = TEXT, *overrides: str) -> list[Problem]:
    with pytest.raises(UserError) as caught:
        load(text, *overrides)
    assert caught.value.exit_code == 2
    return list(caught.value.problems)


def places(problems: list[Problem]) -> set[tuple[int, str]]:
    return {(problem.line, problem.path) for problem in problems}


def test_a_sound_job(load: Load, folder: Path) -> None:
    job = load()
    assert isinstance(job.optimizer, AdamW)
    assert job.optimizer.lr == 1e-2
    assert job.model.config == {"hidden_size": 32}
    assert isinstance(job.data.train, tuple)
    assert job.data.validation == ()
    assert (job.base, job.text) == (folder, TEXT)
    assert job.entries["method"].spec.objective == "token"  # type: ignore[attr-defined]
    assert job.entries["data.train.0"].qualified == "ptsdk/instruct"
    assert job.output_dir == Path("runs/demo")


def test_defaults(load: Load) -> None:
    job = load(TEXT.replace("train:\n  steps: 6\n  batch_size: 8\n", "").replace("loggers: [jsonl]\n", ""))
    assert (job.train.epochs, job.train.steps, job.train.batch_size, job.train.micro_batch_size) == (1, None, 8, 8)
    used = {name: entry.qualified for name, entry in job.entries.items()}
    assert used == {
        "model": "ptsdk/tiny", "tokenizer": "ptsdk/bytes", "data.train.0": "ptsdk/instruct", "method": "ptsdk/sft",
        "loss": "ptsdk/cross_entropy", "adapter": "ptsdk/full", "optimizer": "ptsdk/adamw",
        "schedule": "ptsdk/constant", "strategy": "ptsdk/single",
        "loggers.0": "ptsdk/console", "loggers.1": "ptsdk/jsonl",
    }  # fmt: skip
    assert job.quantizer is None


def test_the_resolved_job_is_a_job_that_resolves_to_itself(load: Load) -> None:
    resolved = load(TEXT, "callbacks=[early_stopping]", "data.validation={use: text, path: train.jsonl}").resolved()
    assert resolved["optimizer"] == record(load().optimizer)
    assert load(yaml.safe_dump(resolved)).resolved() == resolved


def test_the_job_is_frozen(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().output_dir = Path()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "expected"), [(8, 8), (32, 8), (12, 6), (7, 7), (11, 1), (1, 1), ("12", 6), ("x", 8), (0, 8)]
)
def test_the_micro_batch_divides_the_batch(given: object, expected: int) -> None:
    assert default_micro_batch(given) == expected


def test_what_the_yaml_says_twice_or_unreadably_hides_nothing_else(load: Load) -> None:
    text = TEXT.replace("  lr: 1e-2\n", "  lr: fast\n  lr: 1\n  beta: 1\n").replace(
        "  batch_size: 8\n", "  stepps: 6\n"
    )
    text += "method: dpo\nmethod: sft\nschedule: !mine {use: cosine}\n"
    found = faults(load, text)
    assert [(problem.line, problem.path) for problem in found] == [
        (10, "optimizer.lr"), (11, "optimizer.lr"), (12, "optimizer.beta"), (16, "train.stepps"),
        (18, "method"), (19, "method"), (20, "schedule"),
    ]  # fmt: skip
    assert [p.message for p in found if p.line in (11, 18, 19)] == [
        "duplicate key, first on line 10", "duplicate key, first on line 7", "duplicate key, first on line 7",
    ]  # fmt: skip
    twice = TEXT.replace("  lr: 1e-2\n", "  lr: 1e-2\n  lr: 1e-2\n")
    assert places(faults(load, twice, "train.stepps=1")) == {(11, "optimizer.lr"), (1, "train.stepps")}


CASES: list[tuple[str, str, str, int, str, str, str]] = [
    ("optimizer", "lr: 1e-2", "lern: 1", 10, "optimizer.lern", "unknown key `lern`", ""),
    ("optimizer", "lr: 1e-2", "learning_rat: 1", 10, "optimizer.learning_rat", "unknown key", "known here"),
    ("root", "tokenizer:", "tokeniser:", 3, "tokeniser", "unknown key", "did you mean `tokenizer`"),
    ("train", "batch_size: 8", "batchsize: 8", 14, "train.batchsize", "unknown key", "did you mean `batch_size`"),
    ("data", "max_length: 96", "maxlength: 96", 6, "data.maxlength", "unknown key", "max_length"),
    ("dataset", "use: instruct,", "use: instruct, colums: {},", 5, "data.train.colums", "unknown key", "columns"),
    ("config", "hidden_size: 32", "hiden_size: 32", 2, "model.config.hiden_size", "unknown key", "hidden_size"),
    ("type", "lr: 1e-2", "lr: fast", 10, "optimizer.lr", 'expected a number, got "fast"', ""),
    ("type", "lr: 1e-2", "lr: true", 10, "optimizer.lr", "expected a number, got true", ""),
    ("type", "lr: 1e-2", "lr: [1]", 10, "optimizer.lr", "expected a number, got [1]", ""),
    ("type", "lr: 1e-2", "lr: null", 10, "optimizer.lr", "expected a number, got null", ""),
    ("type", "steps: 6", "steps: 6.5", 13, "train.steps", "expected a whole number, got 6.5", ""),
    ("type", "batch_size: 8", "batch_size: true", 14, "train.batch_size", "expected a number, got true", ""),
    ("type", "max_length: 96", "packing: maybe", 6, "data.packing", "expected true or false", ""),
    ("type", "output_dir: runs/demo", "output_dir: 5", 15, "output_dir", "expected a path", ""),
    ("range", "lr: 1e-2", "lr: -1", 10, "optimizer.lr", "must be >= 0", ""),
    ("range", "lr: 1e-2", "lr: .nan", 10, "optimizer.lr", "finite", ""),
    ("range", "lr: 1e-2", "lr: .inf", 10, "optimizer.lr", "finite", ""),
    ("range", "batch_size: 8", "batch_size: 0", 14, "train.batch_size", "must be > 0", ""),
    ("choice", "max_length: 96", "on_long_row: trunkate", 6, "data.on_long_row", "expected one of", "`truncate`"),
    ("api", "api: 1", "api: 2", 1, "api", "expected 1, got 2", ""),
    ("missing", "api: 1\n", "", 1, "api", "missing", "add `api"),
    ("missing", "method: sft\n", "", 1, "method", "missing", "add `method"),
    ("missing", "output_dir: runs/demo", "", 1, "output_dir", "missing", "add"),
    ("missing", "{use: instruct, path: train.jsonl}", "{use: instruct}", 5, "data.train.path", "missing", "add `path"),
    ("missing", "{use: instruct, path: train.jsonl}", "{path: train.jsonl}", 5, "data.train.use", "missing", "text"),
    ("missing", "{use: instruct, path: train.jsonl}", "[]", 5, "data.train", "no data set", ""),
    ("file", "path: train.jsonl", "path: none.jsonl", 5, "data.train.path", "none.jsonl", ""),
    ("name", "use: adamw", "use: adamv", 9, "optimizer.use", "'adamv'", "did you mean adamw"),
    ("name", "method: sft", "method: dpo", 7, "method", "'dpo'", "pip install ptsdk-dpo"),
    ("name", "method: sft", "method: {use: 5}", 7, "method.use", "expected the name", ""),
    ("name", "method: sft", "method: [sft]", 7, "method", "expected the name", ""),
    ("name", "method: sft", "method: nobody/sft", 7, "method", "'nobody'", "installed"),
    ("name", "[jsonl]", "[jsonl, jsnl]", 11, "loggers.1", "'jsnl'", "jsonl"),
    ("path", "{use: instruct, path: train.jsonl}", "train.jsonl", 5, "data.train", "path", "{use: ..., path: "),
    ("model", "{use: tiny, config: {hidden_size: 32}}", "hf://a/b", 2, "model", "path", "{path: hf://a/b}"),
    ("model", "config: {hidden_size: 32}", "dtype: float32", 2, "model", "exactly one", ""),
    ("model", "config: {hidden_size: 32}", "config: {}, path: x", 2, "model", "exactly one", ""),
    ("model", "use: tiny, config: {hidden_size: 32}", "dtype: float32", 2, "model", "neither", "use"),
    ("model", "use: tiny, config: {hidden_size: 32}", "path: nowhere", 2, "model.path", "nowhere", ""),
    ("model", "config: {hidden_size: 32}", "path: nowhere", 2, "model.path", "nowhere", ""),
    ("section", TEXT[TEXT.index("data:"):TEXT.index("method:")], "data: x\n", 4, "data", "a mapping", ""),
    ("section", "train:\n  steps: 6\n  batch_size: 8", "train: [1]", 12, "train", "a mapping", ""),
    ("section", "steps: 6", "steps: 6\n  epochs: 2", 12, "train", "both", ""),
    ("type", "lr: 1e-2", "betas: [0.9]", 10, "optimizer.betas", "[0.9] is too short: item 2 is missing", ""),
    ("range", "lr: 1e-2", "betas: [0.9, 2]", 10, "optimizer.betas.1", "must be < 1", ""),
    ("range", "steps: 6", "steps: 99999999999999999999", 13, "train.steps", "must be < 2147483648", ""),
    ("range", "max_length: 96", "max_length: 9999999999999", 6, "data.max_length", "must be < 2147483648", ""),
    ("range", "output_dir: runs/demo", "output_dir: ''", 15, "output_dir", "name a folder", ""),
    ("config", "hidden_size: 32", "hidden_size: 1000000000000000000", 2, "model.config", "no model can be made", ""),
    ("config", "hidden_size: 32", "hidden_size: 1000000000000000000000", 2, "model.config", "no model can be made", ""),
    ("config", "hidden_size: 32", "num_hidden_layers: 9999999999", 2, "model.config", "more than 10000", ""),
    ("file", "use: bytes", "use: bytes, chat_template: no.jinja", 3, "tokenizer.chat_template", "no.jinja", "relative"),
    ("file", "use: bytes", "path: nowhere", 3, "tokenizer.path", "no such folder: nowhere", ""),
    ("tokenizer", "use: bytes", "use: auto", 3, "tokenizer", "a model from scratch brings no tokenizer", "bytes"),
    ("local", "method: sft", "method: ./none.py:X", 7, "method", "none.py", ""),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "old", "new", "line", "path", "message", "hint"), CASES)
def test_each_fault_has_its_place(
    load: Load, folder: Path, kind: str, old: str, new: str, line: int, path: str, message: str, hint: str
) -> None:
    assert TEXT.count(old) == 1 or kind in ("train", "type", "range", "missing"), "the case must be about one place"
    (problem,) = faults(load, TEXT.replace(old, new, 1))
    assert (problem.file, problem.line, problem.path) == (str(folder / "job.yaml"), line, path)
    assert message in problem.message
    assert hint in problem.hint


def test_all_faults_come_at_once(load: Load) -> None:
    text = TEXT
    for old, new in [
        ("api: 1", "api: 3"),
        ("hidden_size", "hiden_size"),
        ("path: train.jsonl", "path: none.jsonl, colums: {}"),
        ("use: instruct", "use: preference"),
        ("max_length: 96", "packing: 5"),
        ("lr: 1e-2", "lr: x"),
        ("[jsonl]", "[jsnl, jsonl]"),
        ("steps: 6", "steps: x"),
        ("batch_size: 8", "batch_size: 8\n  micro_batch_size: 3\n  sed: 1"),
        ("output_dir: runs/demo", "outputdir: x"),
    ]:
        assert old in text
        text = text.replace(old, new, 1)
    assert places(faults(load, text, "method.x=1", "~nothing")) == {
        (1, "api"), (2, "model.config.hiden_size"), (5, "data.train.path"), (5, "data.train.colums"), (5, "data.train"),
        (6, "data.packing"), (10, "optimizer.lr"), (11, "loggers.0"), (13, "train.steps"),
        (15, "train.micro_batch_size"), (16, "train.sed"), (17, "outputdir"), (1, "output_dir"),
        (1, "method.x"), (1, "nothing"),
    }  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, len(CASES) - 1), min_size=2, max_size=6, unique=True))
def test_any_two_faults_of_different_sections_are_both_told(load: Load, numbers: list[int]) -> None:
    text, expected = TEXT, set()
    sections: set[str] = set()
    for kind, old, new, _, path, message, _ in (CASES[i] for i in numbers):
        section = path.partition(".")[0]
        of_two = message.startswith("a model from scratch")  # is none where the other fault makes it a path
        if section in sections or old not in text or of_two or kind in ("section", "root", "missing"):
            continue
        sections.add(section)
        text = text.replace(old, new, 1)
        expected.add(path)
    if expected:
        assert expected <= {problem.path for problem in faults(load, text)}


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "x", "sft", "a/b", "./x.py:Y"]),
    lambda one: st.lists(one, max_size=2) | st.dictionaries(st.sampled_from(["use", "path", "lr"]), one, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(
        [(name,) for name in Job.model_fields]
        + [("data", "train"), ("data", "validation"), ("model", "config"), ("optimizer", "lr"), ("train", "batch_size")]
    ),
    value=junk,
)
def test_junk_anywhere_is_a_user_error_with_a_place(
    folder: Path, registry: Registry, path: tuple[str, ...], value: Any
) -> None:
    values = yaml.safe_load(TEXT)
    here = values
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(copy.deepcopy(values), sort_keys=False))
    try:
        load_job(file, [], registry)
    except UserError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.message
            assert problem.line >= 1
            assert problem.path.partition(".")[0] in values


def test_numbers_may_come_from_the_environment(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LR", "1e-5")
    assert load(TEXT.replace("1e-2", "${env:LR}")).optimizer.lr == 1e-5


def test_an_unset_variable_is_the_only_fault_told_of_its_place(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    text = TEXT.replace("1e-2", "${env:NO_SUCH}").replace("train.jsonl", "'${env:NO_SUCH}/x.jsonl'")
    found = faults(load, text)
    assert places(found) == {(5, "data.train.path"), (10, "optimizer.lr")}
    assert all("NO_SUCH is not set" in problem.message for problem in found)


def test_secrets_do_not_reach_messages(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "hunter2")
    (problem,) = faults(load, TEXT.replace("lr: 1e-2", "lr: '${env:KEY}'"))
    assert "hunter2" not in str(problem)
    assert "${env:KEY}" in problem.message
    assert load(TEXT.replace("runs/demo", "'runs/${env:KEY}'")).secrets == {"hunter2": "KEY"}


def test_options_without_use_are_those_of_the_default(load: Load) -> None:
    job = load(TEXT.replace("  use: adamw\n", ""), "schedule.warmup=0.1")
    assert isinstance(job.optimizer, AdamW)
    assert job.schedule.warmup == 0.1
    assert job.entries["schedule"].qualified == "ptsdk/constant"


LOCAL = """
from typing import Annotated
from ptsdk.builtin.losses import CrossEntropy
from ptsdk.builtin.sft import SFT
from ptsdk.contracts.component import Use
from ptsdk.contracts.loss import PreferenceLoss
from ptsdk.contracts.reward import Reward

class Scaled(CrossEntropy):
    scale: float = 1.0

class Pairs(PreferenceLoss):
    def __call__(self, chosen, rejected):
        return chosen.policy

class Rewarded(SFT):
    rewards: tuple[Annotated[Reward, Use("reward")], ...]

class Grouped(SFT):
    def items_per_step(self, batch_size):
        if batch_size % 3:
            raise ValueError("groups of 3 do not make a batch")
        return batch_size // 3

class Length:
    factor: float = 1.0
    def score(self, completions, rows):
        return [self.factor * len(text) for text in completions]
"""


def test_local_classes(load: Load, folder: Path) -> None:
    (folder / "mine.py").write_text(LOCAL)
    job = load(TEXT, "loss={use: ./mine.py:Scaled, scale: 2}")
    assert job.resolved()["loss"] == {"use": "./mine.py:Scaled", "scale": 2.0}
    assert list(job.local_files) == ["./mine.py:Scaled"]
    assert len(job.local_files["./mine.py:Scaled"]) == 64


def test_a_local_class_has_the_objective_of_what_it_derives_from(load: Load, folder: Path) -> None:
    (folder / "mine.py").write_text(LOCAL)
    (problem,) = faults(load, TEXT, "loss=./mine.py:Pairs")
    assert problem.path == "loss"
    assert "preference" in problem.message


def test_a_local_data_set_makes_the_examples_of_what_it_derives_from(load: Load, folder: Path) -> None:
    (folder / "mine.py").write_text("from ptsdk.builtin.datasets import Preference\nclass Mine(Preference): pass\n")
    found = faults(load, TEXT.replace("use: instruct", "use: ./mine.py:Mine"))
    assert places(found) == {(5, "data.train")}
    assert "preference" in found[0].message


def checkpoint(folder: Path, **config: Any) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_family_is_found_from_the_checkpoint(load: Load, folder: Path) -> None:
    checkpoint(folder / "model", architectures=["TinyForCausalLM"])
    job = load(TEXT, "model={path: model, dtype: float32}")
    assert isinstance(job.model, Tiny)
    options = {"path": "model", "config": None, "dtype": "float32", "attention": "auto"}
    assert job.resolved()["model"] == {"use": "ptsdk/tiny", **options}


def test_a_checkpoint_that_the_family_named_does_not_read(load: Load, folder: Path) -> None:
    checkpoint(folder / "model", architectures=["TinyForCausalLM"], model_type="other")
    (problem,) = faults(load, TEXT, "model={use: tiny, path: model}")
    assert problem.path == "model.path"
    assert "model: model_type = 'other' is not supported" in problem.message


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM", "ptsdk-llama"),
        ({"architectures": ["NobodysForCausalLM"]}, "NobodysForCausalLM", ""),
        ({}, "names no architecture", "use"),
        ({"architectures": 5}, "names no architecture", "use"),
    ],
)
def test_a_checkpoint_of_no_installed_family(
    load: Load, folder: Path, config: dict[str, Any], message: str, hint: str
) -> None:
    checkpoint(folder / "model", **config)
    (problem,) = faults(load, TEXT, "model={path: model}")
    assert problem.path == "model.path"
    assert message in problem.message
    assert hint in str(problem)


def test_components_inside_components(load: Load, folder: Path) -> None:
    (folder / "mine.py").write_text(LOCAL)
    method = "method={use: ./mine.py:Rewarded, rewards: [{use: ./mine.py:Length, factor: 3}]}"
    job = load(TEXT, method)
    assert job.method.rewards[0].score(["abc"], [{}]) == [9.0]  # type: ignore[attr-defined]
    assert "method.rewards.0" in job.entries
    assert set(job.local_files) == {"./mine.py:Rewarded", "./mine.py:Length"}
    text = TEXT.replace(
        "method: sft",
        "method:\n  use: ./mine.py:Rewarded\n  rewards:\n  - use: ./mine.py:Length\n    facto: 1\n  - ./mine.py:Nope",
    )
    assert places(faults(load, text)) == {(11, "method.rewards.0.facto"), (12, "method.rewards.1")}


def test_a_batch_that_the_method_cannot_make(load: Load, folder: Path) -> None:
    (folder / "mine.py").write_text(LOCAL)
    (problem,) = faults(load, TEXT.replace("method: sft", "method: ./mine.py:Grouped"))
    assert (problem.line, problem.path, problem.message) == (14, "train.batch_size", "groups of 3 do not make a batch")
    assert load(TEXT, "method=./mine.py:Grouped", "train.batch_size=9").train.batch_size == 9


def test_rewards_have_a_weight(load: Load, folder: Path) -> None:
    (folder / "mine.py").write_text(LOCAL)
    rewards = "rewards: [./mine.py:Length, {use: ./mine.py:Length, weight: 0.5}]"
    job = load(TEXT, f"method={{use: ./mine.py:Rewarded, {rewards}}}")
    assert [reward.weight for reward in job.method.rewards] == [1.0, 0.5]  # type: ignore[attr-defined]


def test_a_broken_local_file_is_named_with_its_line(load: Load, folder: Path) -> None:
    (folder / "mine.py").write_text("x = 1\ndef (:\n")
    (problem,) = faults(load, TEXT, "loss=./mine.py:Scaled")
    assert "mine.py:2" in problem.message


def test_a_job_made_in_python(folder: Path, registry: Registry) -> None:
    optimizer = SGD(lr=0.5)
    values = {
        "api": 1,
        "model": Tiny(config={}),
        "tokenizer": "bytes",
        "data": {"train": Instruct(path="train.jsonl")},
        "method": "sft",
        "optimizer": optimizer,
        "output_dir": "x",
    }
    job = make_job(values, registry, folder)
    assert job.optimizer is optimizer
    assert job.entries["optimizer"].qualified == "ptsdk/sgd"
    assert job.resolved()["optimizer"]["use"] == "ptsdk/sgd"
    assert yaml.safe_load(job.text) == job.resolved()
    with pytest.raises(UserError, match="of the kind optimizer, got the model-family Tiny"):
        make_job({**values, "optimizer": values["model"]}, registry, folder)
