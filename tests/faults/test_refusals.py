"""A resume as something else than what was trained: refused, naming what differs, and nothing is touched."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptsdk.checkpoint import lock
from ptsdk.errors import UserError
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
Change = Callable[[dict[str, Any], Path, pytest.MonkeyPatch], None]
CALLBACK = "from ptsdk.contracts.events import Callback\nclass Quiet(Callback):\n    pass\n"


def option(*keys: str, value: Any) -> Change:
    def change(job: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> None:
        place = job
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def other_weights(job: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> None:
    file = folder / "base" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_rows(job: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> None:
    rows = folder / "chats.jsonl"
    rows.write_text(rows.read_text().replace("one", "two", 1))


def other_template(job: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "base" / "chat_template.jinja").write_text(TEMPLATE.replace("<", "["))


def other_version(job: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> None:
    dists = copy.deepcopy(lock.installed_dists())
    dists["ptsdk-lora"]["version"] = "9.9"
    patch.setattr(lock, "installed_dists", lambda: dists)


def other_code(job: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "quiet.py").write_text(CALLBACK + "# now another\n")


CHANGES: dict[str, tuple[Change, str]] = {
    "weights": (other_weights, "model: "),
    "data": (other_rows, "data.train.0: "),
    "template": (other_template, "template: "),
    "version": (other_version, "dists.ptsdk-lora.version: 0.1.0 then, 9.9 now"),
    "code": (other_code, "files../quiet.py:Quiet: "),
    "seed": (option("train", "seed", value=4), "train.seed: 3 then, 4 now"),
    "rate": (option("optimizer", "lr", value=0.5), "optimizer.lr: 0.01 then, 0.5 now"),
    "rank": (option("adapter", "rank", value=8), "adapter.rank: 4 then, 8 now"),
    "batch": (option("train", "batch_size", value=4), "train.batch_size: 8 then, 4 now"),
    "clipping": (option("train", "clip_grad_norm", value=0.5), "train.clip_grad_norm: 1.0 then, 0.5 now"),
    "packing": (option("data", "packing", value=True), "data.packing: False then, True now"),
    "length": (option("data", "max_length", value=48), "data.max_length: 96 then, 48 now"),
    "order": (option("data", "shuffle", value=False), "data.shuffle: True then, False now"),
    "schedule": (option("schedule", value="cosine"), "schedule"),
    "dropout": (option("adapter", "dropout", value=0.1), "adapter.dropout: 0.0 then, 0.1 now"),
}


def resume(folder: Path, job: dict[str, Any], resume: bool = True) -> Path:
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    registry = Registry(scan())
    return run_job(load_job(folder / "job.yaml", (), registry), registry, resume=resume).final_dir


def job_in(folder: Path) -> dict[str, Any]:
    return {
        "api": 1,
        "model": {"path": "base"},
        "data": {"train": {"use": "chat", "path": "chats.jsonl"}, "max_length": 96},
        "method": "sft",
        "adapter": {"use": "lora", "rank": 4},
        "optimizer": {"use": "adamw", "lr": 1e-2},
        "callbacks": [{"use": "./quiet.py:Quiet"}],
        "loggers": ["jsonl"],
        "train": {"steps": 2, "batch_size": 8, "seed": 3},
        "output_dir": str(folder / "tuned"),
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a checkpoint with a template of its own."""
    folder = tmp_path_factory.mktemp("original")
    chat = [{"role": "user", "content": "one?"}, {"role": "assistant", "content": "the one"}]
    (folder / "chats.jsonl").write_text(8 * (json.dumps({"messages": chat}) + "\n"))
    (folder / "quiet.py").write_text(CALLBACK)
    (folder / "template.jinja").write_text(TEMPLATE)
    job = job_in(folder)
    scratch = {"use": "tiny", "config": {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}}
    base = {"model": scratch, "tokenizer": {"use": "bytes", "chat_template": "template.jinja"}, "adapter": "full"}
    resume(folder, {**job, **base, "output_dir": str(folder / "made")}, resume=False).rename(folder / "base")
    resume(folder, job, resume=False)
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_what_differs_is_named(original: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    job = job_in(folder)
    before = {path: path.read_bytes() for path in (folder / "tuned").rglob("*") if path.is_file()}
    change, message = CHANGES[name]
    change(job, folder, monkeypatch)
    with pytest.raises(UserError) as caught:
        resume(folder, job)
    assert any(line.startswith(message) for line in str(caught.value).splitlines()), str(caught.value)
    assert {path: path.read_bytes() for path in (folder / "tuned").rglob("*") if path.is_file()} == before


def test_what_changes_no_step_that_was_taken_may_differ(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    job = job_in(folder)
    job["callbacks"] = [{"use": "./quiet.py:Quiet", "timeout": 5}]
    job["loggers"] = []
    job["train"] |= {"on_nonfinite": "skip", "max_skipped": 3, "on_save_error": "continue", "save_every": 1}
    capsys.readouterr()
    resume(folder, job)
    assert capsys.readouterr().err == ""
