"""Preferences, a teacher, rewards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks import flops, inputs
from tests.benchmarks.inputs import read_rows, write_rows
from tests.benchmarks.row import (
    OPERATIONS,
    OURS,
    WARM_UP,
    Contestant,
    Hold,
    Metrics,
    Output,
    Row,
    faster,
    leaner,
    mine,
    over_best,
    training_metrics,
)
from tests.benchmarks.rows.sft import NO_GEMMA_3
from tests.benchmarks.training import LORA, write_items, write_job

TEACHER = {"hidden_size": 512, "intermediate_size": 1536, "head_dim": 64}
PROMPTS, GROUP, NEW_TOKENS, GRPO_STEPS = 8, 8, 64, 2
KD_BATCH, KD_LENGTH = 4, 256


def config_of(model: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return config


def dpo(folder: Path) -> None:
    train = {"steps": 3, "batch_size": 4, "micro_batch_size": 4}
    write_rows(folder / "pairs.jsonl", read_rows(inputs.pairs())[:32])
    data = {"train": {"use": "preference", "path": "pairs.jsonl"}, "max_length": 512, "shuffle": False}
    loss = {"use": "sigmoid", "beta": 0.1}
    write_job(folder, inputs.gemma(), data, train, lr=1e-4, adapter=LORA, method="dpo", loss=loss)
    config = config_of(inputs.gemma())
    write_items(folder, lambda seq_lens, scored: flops.forward(config, seq_lens, scored))


def kd(folder: Path) -> None:
    train = {"steps": 3, "batch_size": KD_BATCH, "micro_batch_size": KD_BATCH}
    teacher = inputs.llama("llama-128k-teacher", **TEACHER)
    data = {"train": {"use": "text", "path": str(inputs.text())}, "max_length": KD_LENGTH, "shuffle": False}
    method = {"use": "kd", "teacher": {"path": str(teacher), "dtype": "float32"}, "ratio": 1.0}
    write_job(folder, inputs.llama(), data, train, lr=1e-3, method=method, loss="forward_kl")
    config = config_of(teacher)
    write_items(folder, lambda seq_lens, scored: flops.forward(config, seq_lens, scored), teacher=str(teacher))


def grpo(folder: Path) -> None:
    """What the completions will be nobody knows; that a new model ends none of them is all but certain."""
    train = {"steps": GRPO_STEPS, "batch_size": PROMPTS * GROUP, "micro_batch_size": 16}
    prompts = [{"prompt": question} for question, _ in inputs.questions()[: PROMPTS * GRPO_STEPS]]
    write_rows(folder / "prompts.jsonl", prompts)
    shutil.copy(Path(__file__).parents[1] / "contestants" / "timed.py", folder / "timed.py")
    data = {"train": {"use": "prompts", "path": "prompts.jsonl"}, "max_length": 256, "shuffle": False}
    rollout = {"use": "./timed.py:Timed", "slots": PROMPTS * GROUP, "log": str(folder / "run" / "rollouts.jsonl")}
    method = {
        "use": "grpo", "group_size": GROUP, "max_new_tokens": NEW_TOKENS, "rewards": [{"use": "./timed.py:Vowels"}],
        "rollout": rollout,
    }  # fmt: skip
    write_job(folder, inputs.llama(), data, train, lr=1e-4, method=method, loss="grpo")

    from transformers import AutoTokenizer

    tokenizer, config = AutoTokenizer.from_pretrained(inputs.llama()), config_of(inputs.llama())
    lengths = [len(tokenizer(row["prompt"])["input_ids"]) for row in prompts]
    steps = [lengths[i : i + PROMPTS] for i in range(0, len(lengths), PROMPTS)]
    new, scored = PROMPTS * GROUP * [NEW_TOKENS], PROMPTS * GROUP * NEW_TOKENS
    whole = [[prompt + NEW_TOKENS for prompt in step for _ in range(GROUP)] for step in steps]
    row = {
        "model": str(inputs.llama()), "lr": 1e-4, "group_size": GROUP, "max_new_tokens": NEW_TOKENS, **train,
        "tokens": [sum(step) for step in whole],
        "flops": [
            flops.forward(config, prompts, 0) + flops.forward(config, new, scored) + flops.training(config, seq, scored)
            for prompts, seq in zip(steps, whole, strict=True)
        ],
    }  # fmt: skip
    (folder / "row.json").write_text(json.dumps(row), encoding="utf-8")


def grpo_metrics(folder: Path, runs: Sequence[Output], peak_rate: float) -> Metrics:
    """Those of training, and of the rollouts by themselves."""
    rates = [
        tokens / seconds
        for run in runs
        for tokens, seconds in list(zip(run["rollout_tokens"], run["rollout_seconds"], strict=True))[WARM_UP:]
    ]
    tokens = median(tokens for run in runs for tokens in run["rollout_tokens"])
    rollout = {"rollout_tokens_per_second": median(rates), "completion_tokens": tokens}
    return training_metrics(folder, runs, peak_rate) | rollout


ROWS = (
    Row(
        "dpo-lora",
        "DPO with LoRA of rank 8 on Gemma 3 270M; 4 pairs a step, the reference is the adapter switched off",
        {OURS: Contestant("ours"), "trl": Contestant("trl_dpo", ".venv-peers")},
        (faster(1.5), leaner(0.6)),
        dpo,
        training_metrics,
        absent={"torchtune": NO_GEMMA_3},
        profile=OPERATIONS,
    ),
    Row(
        "kd",
        "A Llama 256 wide learns from one 512 wide, forward KL over a vocabulary of 131,072; 4 texts of up to 256 "
        "tokens a step. TRL's is GKDTrainer on given text (DistillationTrainer only distils what the student writes)",
        {OURS: Contestant("ours"), "trl": Contestant("trl_kd", ".venv-peers")},
        (
            faster(1.3),
            Hold(
                "no tensor as large as one [N, V] in a step",
                mine("largest_of_all_logits"),
                0.99,
                at_least=False,
            ),
        ),
        kd,
        training_metrics,
        absent={"torchtune": "its recipe distils into a LoRA alone"},
        checks=(Contestant("largest"),),
        profile=OPERATIONS,
    ),
    Row(
        "grpo",
        "GRPO on a new Llama, 256 wide, with a vocabulary of 131,072: 8 prompts, 8 completions of 64 tokens each",
        {OURS: Contestant("ours"), "trl": Contestant("trl_grpo", ".venv-peers")},
        (
            Hold("rollout 2x TRL's `generate` or more", over_best("rollout_tokens_per_second"), 2),
            Hold("the whole step 1.5x or more", over_best("tokens_per_second"), 1.5),
        ),
        grpo,
        grpo_metrics,
        absent={"torchtune": "its GRPO recipe is for several GPUs, in its development branch"},
        profile=OPERATIONS,
    ),
)
