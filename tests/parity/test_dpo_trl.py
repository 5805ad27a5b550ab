"""Five steps of preference optimisation, beside TRL's DPOTrainer on the same weights and pairs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ptsdk
from ptsdk.contracts.loss import Completions
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.assemble import assemble
from ptsdk_dpo.losses import SimPO
from ptsdk_dpo.scoring import score
from ptsdk_lora.adapter import Lora
from tests.conftest import WORDS, WriteJob, metrics
from tests.faults.test_sigkill import VOLATILE
from tests.parity.trl import save_checkpoint

STEPS, LR, BATCH, SEED = 5, 2e-3, 8, 3
COMPARED = (
    "loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen",
    "logps/rejected",
)  # fmt: skip
LORA = {"use": "lora", "rank": 4, "alpha": 8}
LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {"use": "sigmoid", "beta": 0.3},
    # TRL's sigmoid leaves label smoothing out; its AOT, on one pair at a time, is the smoothed sigmoid
    "aot": {"use": "sigmoid", "beta": 0.3, "label_smoothing": 0.2},
    "hinge": {"use": "hinge", "beta": 0.3},
    "ipo": {"use": "ipo", "beta": 0.3},
}
"""TRL's name of each loss, and ours."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "model")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """40 pairs of uneven length, in the order they are read."""
    path = tmp_path / "pairs.jsonl"
    with path.open("w") as file:
        for i in range(STEPS * BATCH):
            words = [WORDS[(i * 3 + j) % len(WORDS)] for j in range(17)]
            row = {
                "prompt": " ".join(words[: 1 + i % 5]) + "?",
                "chosen": " " + " ".join(words[5 : 6 + (i * 7) % 6]),
                "rejected": " " + " ".join(words[10 : 11 + (i * 5) % 7]),
            }
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def adapter(checkpoint: Path, tmp_path: Path) -> Path:
    """The adapter our run starts with, as PEFT reads it."""
    model, lora, folder = ptsdk.load_model(checkpoint), Lora(rank=4, alpha=8), tmp_path / "adapter"
    lora.apply(model)
    lora.init(model, SEED)
    folder.mkdir()
    lora.save({n: p.detach() for n, p in model.named_parameters() if lora.own(n)}, folder, str(checkpoint))
    return folder


def trl_history(
    checkpoint: Path, pairs: Path, out: Path, name: str, loss: dict[str, Any], adapter: Path | None
) -> list[dict[str, float]]:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    alone = name == "aot"
    args = DPOConfig(
        output_dir=str(out),
        max_steps=STEPS,
        per_device_train_batch_size=1 if alone else BATCH,
        gradient_accumulation_steps=BATCH if alone else 1,
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=96,
        beta=loss["beta"],
        label_smoothing=loss.get("label_smoothing", 0.0),
        loss_type=[name],
    )
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    trainer = DPOTrainer(
        PeftModel.from_pretrained(model, adapter, is_trainable=True) if adapter else model,
        args=args,
        train_dataset=Dataset.from_list([json.loads(line) for line in pairs.read_text().splitlines()]),
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
    )
    trainer.train()
    return [row for row in trainer.state.log_history if "grad_norm" in row]


@pytest.fixture
def dpo(job: dict[str, Any], checkpoint: Path, pairs: Path) -> dict[str, Any]:
    """A job on the pairs, in their order."""
    del job["tokenizer"]
    return job | {
        "model": {"path": str(checkpoint), "dtype": "float32"},
        "data": {"train": {"use": "preference", "path": str(pairs)}, "max_length": 96, "shuffle": False},
        "method": "dpo",
        "optimizer": {"use": "adamw", "lr": LR, "weight_decay": 0.0},
        "train": {"steps": STEPS, "batch_size": BATCH, "micro_batch_size": 4, "clip_grad_norm": 1.0, "seed": SEED},
    }


def train(write_job: WriteJob, job: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    ptsdk.run(write_job(job | {"output_dir": str(out)}))
    return metrics(out)


@pytest.mark.parametrize("update", ["full", "lora"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_rewards_and_gradient_norms(
    dpo: dict[str, Any], write_job: WriteJob, checkpoint: Path, pairs: Path, adapter: Path, tmp_path: Path,
    name: str, update: str,
) -> None:  # fmt: skip
    loss = LOSSES[name]
    if update == "lora":
        dpo["adapter"] = LORA
    ours = train(write_job, dpo | {"loss": loss}, tmp_path / "run")
    theirs = trl_history(checkpoint, pairs, tmp_path / "trl", name, loss, adapter if update == "lora" else None)
    assert len(ours) == len(theirs) == STEPS
    for a, b in zip(ours, theirs, strict=True):
        for key in COMPARED:  # rewards are small differences of sums, in float32
            assert a[key] == pytest.approx(b[key], rel=1e-5, abs=2e-5 if "rewards" in key else 0), key
    if name == "sigmoid":
        assert ours[0]["loss"] == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("adapter_job", [{}, {"adapter": {**LORA, "dropout": 0.1}}], ids=["full", "lora"])
def test_every_reference_gives_the_same_run(
    dpo: dict[str, Any], write_job: WriteJob, tmp_path: Path, adapter_job: dict[str, Any]
) -> None:
    dpo |= adapter_job
    dpo["data"] |= {"shuffle": True, "validation": dpo["data"]["train"]}
    runs = {
        reference: train(write_job, dpo | {"method": {"use": "dpo", "reference": reference}}, tmp_path / reference)
        for reference in ("auto", "copy", "precompute")
    }
    assert "val/rewards/margins" in runs["auto"][-1]
    for reference in ("copy", "precompute"):
        for a, b in zip(runs["auto"], runs[reference], strict=True):
            assert a.keys() == b.keys()
            for key in set(a) - VOLATILE:
                assert a[key] == pytest.approx(b[key], rel=1e-4, abs=1e-5), (reference, key)


def test_an_adapter_switched_off_is_the_base_without_dropout(
    dpo: dict[str, Any], write_job: WriteJob, checkpoint: Path
) -> None:
    dpo["adapter"] = {**LORA, "dropout": 0.5}
    registry = Registry(scan())
    run = assemble(load_job(write_job(dpo), [], registry), registry)
    with torch.no_grad():
        for parameter in run.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    run.model.train()
    base = ptsdk.load_model(checkpoint)
    batch = run.job.method.micro_batch(run, run.train_data, [0, 3])
    state = torch.get_rng_state()
    with run.reference() as model:
        ours = score(model, batch)
        assert model is run.model and not run.frozen and not ours.requires_grad
    assert torch.get_rng_state().equal(state) and run.model.training
    torch.testing.assert_close(ours, score(base, batch).detach(), rtol=1e-6, atol=1e-5)
    assert not torch.allclose(score(run.model, batch), ours, atol=1e-2)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_simpo_is_that_of_trl(label_smoothing: float) -> None:
    from trl.experimental.cpo import CPOTrainer

    torch.manual_seed(0)
    chosen, rejected = (torch.randn(16, dtype=torch.float64) * 5 - 20 for _ in range(2))
    tokens = [torch.randint(1, 30, (16,)) for _ in range(2)]
    stub = SimpleNamespace(
        alpha=0.0, beta=2.5, simpo_gamma=1.4, label_smoothing=label_smoothing, loss_type="simpo",
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    theirs = CPOTrainer.cpo_loss(stub, chosen / tokens[0], rejected / tokens[1])
    loss = SimPO(beta=2.5, gamma_margin=1.4, label_smoothing=label_smoothing)
    pair = Completions(chosen, None, tokens[0]), Completions(rejected, None, tokens[1])
    for ours, oracle in zip((loss(*pair), *map(loss.rewards, pair)), theirs, strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-12, atol=0)
