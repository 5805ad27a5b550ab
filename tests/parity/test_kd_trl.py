"""Distillation beside transformers' models under TRL's own divergence, a Qwen 2 teaching a Llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from ptsdk_kd.losses import JSD, DistillationLoss, ForwardKL, ReverseKL
from tests.conftest import WORDS, WriteJob, metrics
from tests.parity.trl import new_tokenizer, save_checkpoint

STEPS, LR, BATCH, RATIO = 5, 2e-3, 8, 0.6
LOSSES: dict[str, tuple[dict[str, Any], float, float]] = {
    "forward_kl": ({"use": "forward_kl"}, 0.0, 1.0),
    "reverse_kl": ({"use": "reverse_kl", "temperature": 2.5}, 1.0, 2.5),
    "jsd": ({"use": "jsd"}, 0.5, 1.0),
    "jsd_of_another_beta": ({"use": "jsd", "beta": 0.2, "temperature": 0.8}, 0.2, 0.8),
    "jsd_at_its_ends": ({"use": "jsd", "beta": 1.0}, 1.0, 1.0),
}
"""Our loss, and TRL's beta and temperature."""


@pytest.mark.parametrize(
    ("loss", "beta"),
    [
        (ForwardKL(), 0.0),
        (ReverseKL(), 1.0),
        (JSD(), 0.5),
        (JSD(beta=0.1), 0.1),
        (JSD(beta=0), 0.0),
        (JSD(beta=1), 1.0),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergences_and_gradients_are_trls(loss: DistillationLoss, beta: float, temperature: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    torch.manual_seed(0)
    student, teacher = (torch.randn(7, 19, dtype=torch.float64) * 4 for _ in range(2))
    loss = loss.model_copy(update={"temperature": temperature})
    results = []
    for function in (
        lambda s, t: loss(*(torch.log_softmax(logits / temperature, -1) for logits in (s, t))),
        lambda s, t: GKDTrainer.generalized_jsd_loss(s, t, beta=beta, temperature=temperature, reduction="none").sum(
            -1
        ),
    ):
        logits = student.clone().requires_grad_()
        values = function(logits, teacher)
        values.sum().backward()
        results.append((values.detach(), logits.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """A student, and a teacher of another family and width whose vocabulary is padded further."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    student = save_checkpoint(tmp_path / "student")
    tokenizer, teacher = new_tokenizer(None), tmp_path / "teacher"
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 11, hidden_size=40, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(teacher)
    tokenizer.save_pretrained(teacher)
    return student, teacher


def write_rows(path: Path) -> list[tuple[str, str]]:
    """Rows of uneven length, in the order they are read."""
    rows = []
    for i in range(STEPS * BATCH):
        words = [WORDS[(i * 3 + j) % len(WORDS)] for j in range(12)]
        rows.append((" ".join(words[: 1 + i % 5]) + "?", " " + " ".join(words[5 : 6 + (i * 7) % 6])))
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows))
    return rows


def by_trl(
    student: Path, teacher: Path, rows: list[tuple[str, str]], beta: float, temperature: float
) -> list[list[float]]:
    """[loss, cross-entropy, divergence, gradient norm] of each step: a plain loop, one row at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gkd import GKDTrainer

    tokenizer = AutoTokenizer.from_pretrained(student)
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (student, teacher)]
    optimizer = torch.optim.AdamW(models[0].parameters(), lr=LR, weight_decay=0.0)
    history = []
    for step in range(STEPS):
        ce, kd, count = torch.zeros(()), torch.zeros(()), 0
        for prompt, completion in rows[step * BATCH : (step + 1) * BATCH]:
            start = tokenizer(prompt)["input_ids"]
            ids = [*start, *tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            inputs, keep = torch.tensor([ids]), slice(len(start) - 1, len(ids) - 1)
            ours, theirs = (model(inputs).logits[0, keep] for model in models)
            ce = ce + cross_entropy(ours, inputs[0, len(start) :], reduction="sum")
            kd = kd + GKDTrainer.generalized_jsd_loss(
                ours, theirs[:, : ours.shape[1]].detach(), beta=beta, temperature=temperature, reduction="sum"
            )
            count += len(ids) - len(start)
        loss = ((1 - RATIO) * ce + RATIO * kd) / count
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(models[0].parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        history.append([loss.item(), ce.item() / count, kd.item() / count, norm.item()])
    return history


@pytest.mark.parametrize(("loss", "beta", "temperature"), LOSSES.values(), ids=LOSSES)
def test_five_steps(
    models: tuple[Path, Path],
    write_job: WriteJob,
    tmp_path: Path,
    loss: dict[str, Any],
    beta: float,
    temperature: float,
) -> None:
    student, teacher = models
    rows = write_rows(tmp_path / "rows.jsonl")
    job = {
        "api": 1,
        "model": {"path": str(student), "dtype": "float32"},
        "data": {"train": {"use": "instruct", "path": "rows.jsonl"}, "max_length": 96, "shuffle": False},
        "method": {"use": "kd", "teacher": {"path": str(teacher)}, "ratio": RATIO},
        "loss": loss,
        "optimizer": {"use": "adamw", "lr": LR, "weight_decay": 0.0},
        "loggers": ["jsonl"],
        "train": {"steps": STEPS, "batch_size": BATCH, "micro_batch_size": 4, "clip_grad_norm": 1.0},
        "output_dir": str(tmp_path / "run"),
    }
    registry = Registry(scan())
    run_job(load_job(write_job(job), (), registry), registry)
    ours = [[row[key] for key in ("loss", "ce_loss", "kd_loss", "grad_norm")] for row in metrics(tmp_path / "run")]
    theirs = by_trl(student, teacher, rows, beta, temperature)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-4, atol=1e-6)
