"""The first five steps of supervised fine-tuning, beside TRL's SFTTrainer on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.conftest import WriteJob, metrics
from tests.parity.trl import save_checkpoint, trl_history

STEPS, LR = 5, 1e-3
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = CHATML.replace(
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}",
    "{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}",
)
"""The same text; TRL needs to be told which of it is the assistant's."""
TAILLESS = CHATML.replace(" + '\n' }}{% endfor %}", " }}{% endfor %}")
"""Nothing behind the end of a turn: TRL puts loss on it in a completion, ptsdk does not."""


@pytest.fixture
def train(job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> Any:
    """Runs our side and gives its metrics."""

    def run(checkpoint: Path, data: dict[str, Any], **sections: Any) -> list[dict[str, Any]]:
        job["model"] = {"path": str(checkpoint), "dtype": "float32"}
        job.pop("tokenizer", None)
        job["data"] = {"max_length": 96, "shuffle": False, **data}
        job["optimizer"] = {"use": "adamw", "lr": LR}
        job["train"] = {"steps": STEPS, "batch_size": 8, "micro_batch_size": 2, "clip_grad_norm": 1.0}
        registry = Registry(scan())
        run_job(load_job(write_job({**job, **sections}), (), registry), registry, overwrite=True)
        return metrics(tmp_path / "run")

    return run


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def assert_close(ours: list[dict[str, Any]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs) == STEPS
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
        assert a["lr"] == pytest.approx(b["learning_rate"], rel=1e-9)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_losses_and_gradient_norms(train: Any, rows: Path, tmp_path: Path, weight_decay: float) -> None:
    checkpoint = save_checkpoint(tmp_path / "model")
    optimizer = {"use": "adamw", "lr": LR, "weight_decay": weight_decay}
    ours = train(checkpoint, {"train": {"use": "instruct", "path": str(rows)}}, optimizer=optimizer)
    options = {"max_steps": STEPS, "learning_rate": LR, "weight_decay": weight_decay, "completion_only_loss": True}
    assert_close(ours, trl_history(checkpoint, read(rows), tmp_path / "trl", **options))


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_schedules_with_warm_up(train: Any, rows: Path, tmp_path: Path, name: str) -> None:
    """A fraction of the steps, rounded up: 0.3 of 5 are 2."""
    checkpoint = save_checkpoint(tmp_path / "model")
    schedule = {"use": name, "warmup": 0.3}
    ours = train(checkpoint, {"train": {"use": "instruct", "path": str(rows)}}, schedule=schedule)
    options = {"max_steps": STEPS, "learning_rate": LR, "lr_scheduler_type": name, "warmup_steps": 0.3}
    assert_close(ours, trl_history(checkpoint, read(rows), tmp_path / "trl", completion_only_loss=True, **options))


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_adapters_from_the_same_start(train: Any, rows: Path, tmp_path: Path, kind: str) -> None:
    """PEFT trains the adapter that our own first, unmoving step wrote."""
    checkpoint, data = save_checkpoint(tmp_path / "model"), {"train": {"use": "instruct", "path": str(rows)}}
    adapter = {"use": kind, "rank": 4, "alpha": 8}
    train(checkpoint, data, adapter=adapter, schedule={"use": "linear", "warmup": 1}, train={"steps": 1})
    start = (tmp_path / "run" / "final").rename(tmp_path / "start")
    ours = train(checkpoint, data, adapter=adapter)
    options = {"max_steps": STEPS, "learning_rate": LR, "completion_only_loss": True}
    assert_close(ours, trl_history(checkpoint, read(rows), tmp_path / "trl", start, **options))


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_the_assistants_turns_of_conversations(train: Any, rows: Path, tmp_path: Path, template: str) -> None:
    """Without {% generation %} ours derives the mask that TRL has to be given."""
    chats = [
        {
            "messages": [
                {"role": "system", "content": "answer"},
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
                {"role": "user", "content": "again"},
                {"role": "assistant", "content": row["completion"][::-1]},
            ]
        }
        for row in read(rows)
    ]
    path = write(tmp_path / "chat.jsonl", chats)
    data = {"train": {"use": "chat", "path": path}, "max_length": 256}
    ours = train(save_checkpoint(tmp_path / "model", template), data)
    marked = save_checkpoint(tmp_path / "marked", MARKED)
    options = {"max_steps": STEPS, "learning_rate": LR, "assistant_only_loss": True, "max_length": 256}
    assert_close(ours, trl_history(marked, chats, tmp_path / "trl", **options))


def test_prompts_and_completions_under_a_template(train: Any, rows: Path, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", TAILLESS)
    ours = train(checkpoint, {"train": {"use": "instruct", "path": str(rows)}})
    pairs = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in read(rows)
    ]
    options = {"max_steps": STEPS, "learning_rate": LR, "completion_only_loss": True}
    assert_close(ours, trl_history(checkpoint, pairs, tmp_path / "trl", **options))


@pytest.mark.parametrize("max_length", [96, 6])
def test_plain_text_whole_and_cut(train: Any, rows: Path, tmp_path: Path, max_length: int) -> None:
    """TRL adds EOS to text, ptsdk what the tokenizer gives: theirs reads the ids."""
    checkpoint = save_checkpoint(tmp_path / "model")
    texts = [row["prompt"] + row["completion"] for row in read(rows)]
    path = write(tmp_path / "text.jsonl", [{"text": text} for text in texts])
    ours = train(checkpoint, {"train": {"use": "text", "path": path}, "max_length": max_length})
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = [{"input_ids": tokenizer(text)["input_ids"]} for text in texts]
    assert any(len(row["input_ids"]) > 6 for row in ids)
    options = {"max_steps": STEPS, "learning_rate": LR, "max_length": max_length}
    assert_close(ours, trl_history(checkpoint, ids, tmp_path / "trl", **options))
