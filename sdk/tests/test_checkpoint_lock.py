"""The lock names what changes results, lets the rest pass, and holds no secret."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from ptsdk.checkpoint.environment import installed_dists, model_fingerprint, record_digest, source_digest
from ptsdk.checkpoint.lock import lock_differences, lock_notes, make_lock, schedule_unchanged
from ptsdk.contracts.schedule import Schedule
from ptsdk.contracts.strategy import World
from ptsdk.plugins import Entry
from ptsdk.redaction import redact
from ptsdk.specs import Spec

RESOLVED: dict[str, Any] = {
    "model": {"use": "ptsdk-llama/llama", "path": "/models/x", "dtype": "float32"},
    "data": {"train": [{"use": "ptsdk/chat", "path": "a.jsonl"}], "validation": [], "max_length": 64},
    "method": {"use": "ptsdk/sft"},
    "optimizer": {"use": "ptsdk/adamw", "lr": 1e-3},
    "loggers": [{"use": "ptsdk/jsonl"}],
    "train": {"steps": 10, "epochs": None, "seed": 0, "save_every": 5, "micro_batch_size": 4, "keep_last": 2},
    "output_dir": "runs/x",
}


@dataclass
class FakeJob:
    secrets: set[str] = field(default_factory=set)
    local_files: dict[str, str] = field(default_factory=dict)
    entries: dict[str, Any] = field(
        default_factory=lambda: {
            "method": Entry("method", Spec("sft", "ptsdk.builtin.sft:SFT"), "ptsdk", "1"),
            "method.rewards.0": Entry("reward", Spec("r", "pluggy.x:R"), "pluggy", "1"),
            "method.rewards.1": Entry("reward", Spec("local-r", "local:R"), "", ""),
            "loggers.0": Entry("logger", Spec("l", "click.x:L"), "click", "1"),
        }
    )


class FakeTokenizer:
    chat_template = "{{ x }}"

    def fingerprint(self) -> str:
        return "f" * 64


def lock(job: FakeJob | None = None, resolved: dict[str, Any] | None = None) -> dict[str, Any]:
    made = make_lock(
        job or FakeJob(),
        resolved or RESOLVED,
        data={"train": ["d" * 64], "validation": []},
        model="m" * 64,
        tokenizer=FakeTokenizer(),  # type: ignore[arg-type]
        total_steps=10,
        seed=0,
        world=World(0, 1, torch.device("cpu")),
    )
    back: dict[str, Any] = json.loads(json.dumps(made))
    return back


def changed(old: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    new = copy.deepcopy(old)
    *parents, last = path.split("/")
    place: Any = new
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return new


@pytest.fixture(scope="module")
def old() -> dict[str, Any]:
    return lock()


def test_the_same_run_may_resume(old: dict[str, Any]) -> None:
    assert lock_differences(old, lock()) == [] == lock_notes(old, lock())
    assert old["used"] == ["pluggy", "ptsdk"] and sorted(old["sources"]) == ["pluggy", "ptsdk"]


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("job/optimizer/lr", 0.01, "optimizer.lr: 0.001 then, 0.01 now"),
        ("job/optimizer/betas", [1], "optimizer.betas: absent then, [1] now"),
        ("job/train/seed", 1, "train.seed: 0 then, 1 now"),
        ("job/method/use", "ptsdk-dpo/dpo", "method.use: ptsdk/sft then, ptsdk-dpo/dpo now"),
        ("job/data/max_length", 32, "data.max_length: 64 then, 32 now"),
        ("data/train", ["d" * 64, "e" * 64], "data.train.1: absent"),
        ("data/train/0", "e" * 64, "data.train.0: dddddddd"),
        ("model", "a" * 64, "model: mmmm"),
        ("tokenizer", "a" * 64, "tokenizer: ffffffffffff then, aaaaaaaaaaaa now"),
        ("template", None, "template: "),
        ("files", {"./r.py": "1" * 64}, "files../r.py: absent then, 111111111111 now"),
        ("dists/pluggy/version", "0.1", "dists.pluggy.version: "),
        ("dists/pluggy/record", "1" * 64, "dists.pluggy.record: "),
        ("dists/torch/version", "1.0", "dists.torch.version: "),
        ("total_steps", 20, "total_steps: 10 then, 20 now"),
        ("job/train/steps", 20, "train.steps: 10 then, 20 now"),
    ],
)
def test_what_changes_results_is_named(old: dict[str, Any], path: str, value: Any, line: str) -> None:
    found = lock_differences(old, changed(old, path, value))
    assert len(found) == 1 and found[0].startswith(line)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("job/loggers", []), ("job/output_dir", "elsewhere"), ("job/train/save_every", 1), ("job/train/keep_last", 9),
        ("job/data/prefetch", False),
        ("job/data/train/0/path", "moved.jsonl"), ("job/model/path", "/moved"), ("dists/numpy/version", "0"),
        ("dists/click/version", "0"),
    ],
)  # fmt: skip
def test_what_does_not_is_passed_over(old: dict[str, Any], path: str, value: Any) -> None:
    assert lock_differences(old, changed(old, path, value)) == []
    assert lock_notes(old, changed(old, path, value)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("environment/world_size", 4),
        ("job/train/micro_batch_size", 2),
        ("job/optimizer/implementation", "loop"),
        ("sources/ptsdk", "0" * 64),
    ],
)
def test_what_regroups_the_same_sums_is_told(old: dict[str, Any], path: str, value: Any) -> None:
    assert lock_differences(old, changed(old, path, value)) == []
    assert len(lock_notes(old, changed(old, path, value))) == 1


def test_a_moved_path_without_a_fingerprint_counts(old: dict[str, Any]) -> None:
    bare = changed(old, "model", None)
    assert lock_differences(bare, changed(bare, "job/model/path", "/other")) == [
        "model.path: /models/x then, /other now"
    ]


class Falling(Schedule):
    def factor(self, step: int, total: int) -> float:
        return 1 - step / total


class Flat(Schedule):
    def factor(self, step: int, total: int) -> float:
        return min(1.0, (step + 1) / max(1, self.warmup_steps(total)))


def test_a_run_is_extended_only_where_past_rates_stay(old: dict[str, Any]) -> None:
    assert schedule_unchanged(Flat(warmup=3), 5, 10, 20)
    assert not schedule_unchanged(Flat(warmup=0.3), 5, 10, 20)
    assert not schedule_unchanged(Falling(), 5, 10, 20)
    assert schedule_unchanged(Falling(), 1, 10, 20)
    new = changed(changed(old, "job/train/steps", 20), "total_steps", 20)
    assert len(lock_differences(old, new)) == 2
    assert lock_differences(old, new, steps_may_change=True) == []


def test_secrets_stay_out() -> None:
    resolved = copy.deepcopy(RESOLVED)
    resolved["loggers"] = [{"use": "x", "url": "https://me:pw@host/a", "api_key": "K", "note": "key sk-123456 end"}]
    resolved["data"]["train"][0] |= {"token": "t0k", "hf_token": "h", "path": "s3://id:key@bucket/x", "format": "ab"}
    text = json.dumps(lock(FakeJob(secrets={"sk-123456", "ab", ""}), resolved)["job"])
    for secret in ("me:pw", "sk-123456", '"K"', "t0k", '"h"', "id:key", '"ab"'):
        assert secret not in text
    assert "https://***@host/a" in text and "key *** end" in text


def test_what_only_looks_secret_is_kept() -> None:
    value = {"tokenizer": "x", "eos_token": "</s>", "max_new_tokens": 3, "monkey": "m", "pad_token": "p", "word": "abc"}
    assert redact(value, {"ab"}) == value


def test_dists_are_hashed_by_what_they_installed() -> None:
    from importlib import metadata

    dists = installed_dists()
    assert dists["torch"]["version"] == torch.__version__ and len(dists["torch"]["record"] or "") == 64
    origin = json.loads(metadata.distribution("ptsdk").read_text("direct_url.json") or "{}")
    editable = origin.get("dir_info", {}).get("editable", False)  # its code is elsewhere, and changes
    assert (dists["ptsdk"]["record"] is None) == editable
    pluggy, click = (record_digest(metadata.distribution(name)) for name in ("pluggy", "click"))
    assert pluggy == dists["pluggy"]["record"] != click


def test_sources_are_hashed_without_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    package = tmp_path / "some_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    before = source_digest("some_plugin")
    assert before == source_digest("some_plugin")
    (package / "a.py").write_text("x = 1")
    assert source_digest("some_plugin") != before and "some_plugin" not in sys.modules
    assert source_digest("no_such_module") is None


def test_a_models_fingerprint_follows_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptsdk.checkpoint.environment.HASHED_IN_FULL", 2**21)
    (tmp_path / "config.json").write_text("{}")
    weights = bytearray(3 * 2**20)
    (tmp_path / "model.safetensors").write_bytes(weights)
    seen = {model_fingerprint(tmp_path)}
    (tmp_path / "README.md").write_text("x")
    assert model_fingerprint(tmp_path) in seen
    for at in (0, -1, 2**20 + 100):
        weights[at] = 1
        (tmp_path / "model.safetensors").write_bytes(weights)
        seen.add(model_fingerprint(tmp_path))
    (tmp_path / "config.json").write_text("{ }")
    seen |= {model_fingerprint(tmp_path), model_fingerprint(tmp_path / "model.safetensors")}
    assert len(seen) == 6
