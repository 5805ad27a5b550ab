"""Small jobs of every method, and what a real run of them holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.job.job import Job
from ptsdk.job.load import make_job
from ptsdk.plan.meter import Meter, held_bytes
from ptsdk.plan.rehearsal import Models
from ptsdk.plan.workload import Workload, workload_of
from ptsdk.registry import Registry
from ptsdk.train.assemble import assemble
from ptsdk.train.events import RunEventBus
from ptsdk.train.frozen import open_frozen, open_model
from ptsdk.train.offloading import offload_inputs
from ptsdk.train.saving import Saver
from ptsdk.train.trainer import Trainer

CONFIG = {
    "vocab_size": 4096, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
NUMPY = saved_tensors_hooks(lambda t: t.detach().numpy().copy(), lambda kept: torch.from_numpy(kept).clone())
"""Where offloading goes to without an accelerator."""
REWARD = """
class Long:
    def score(self, completions, rows):
        return [float(len(text)) for text in completions]
"""
LORA: dict[str, Any] = {"adapter": {"use": "lora", "rank": 4}}
PAIRS: dict[str, Any] = {"data": {"train": {"use": "preference", "path": "rows.jsonl"}}}
GRPO: dict[str, Any] = {
    "method": {"use": "grpo", "group_size": 4, "max_new_tokens": 24, "rewards": [{"use": "./reward.py:Long"}]},
    "data": {"train": {"use": "prompts", "path": "rows.jsonl"}},
    "train": {"batch_size": 8, "micro_batch_size": 4},
}
JOBS: dict[str, dict[str, Any]] = {
    "sft": {},
    "sft-whole-step": {"train": {"micro_batch_size": 4}},
    "sft-tokens": {"train": {"micro_batch_size": None, "micro_batch_tokens": 250}},
    "sft-packed": {"data": {"packing": True}},
    "sft-full-checkpointing": {"train": {"activation_checkpointing": "full"}},
    "sft-checkpointing-every-other": {
        "train": {"activation_checkpointing": "full", "activation_checkpointing_every": 2},
    },
    "sft-selective-checkpointing": {"train": {"activation_checkpointing": "selective"}},
    "sft-offloading": {"train": {"activation_checkpointing": "full", "activation_offloading": True}},
    "sft-offloading-every-other": {
        "train": {
            "activation_checkpointing": "selective",
            "activation_checkpointing_every": 2,
            "activation_offloading": True,
        },
    },
    "sft-in-backward": {
        "train": {"optimizer_in_backward": True, "micro_batch_size": 4, "clip_grad_norm": None},
    },
    "sft-bfloat16": {"model": {"dtype": "bfloat16"}},
    "sft-sgd": {"optimizer": {"use": "sgd", "momentum": 0.9}},
    "sft-8-bit": {"optimizer": "adamw-8bit"},
    "sft-adafactor": {"optimizer": "adafactor"},
    "sft-muon": {"optimizer": "muon"},
    "lora": LORA,
    "dora": {"adapter": {"use": "dora", "rank": 4, "dropout": 0.1}},
    "qlora-nf4": {**LORA, "quantizer": "nf4"},
    "qlora-int8": {**LORA, "quantizer": "int8"},
    "qlora-int4": {**LORA, "quantizer": "int4"},
    "dpo": {"method": "dpo", **PAIRS},
    "dpo-lora": {"method": "dpo", **PAIRS, **LORA},
    "kd": {"method": {"use": "kd", "teacher": {"use": "llama", "config": {**CONFIG, "num_hidden_layers": 6}}}},
    "grpo": GRPO,
    "grpo-tokens": {**GRPO, "train": {"batch_size": 8, "micro_batch_size": None, "micro_batch_tokens": 200}},
    "grpo-lora-epochs": {**GRPO, **LORA, "method": {**GRPO["method"], "epochs": 2}},
}


def job_of(folder: Path, registry: Registry, changes: dict[str, Any], **more: Any) -> Job:
    """The job of ``JOBS``, beside its data in ``folder``."""
    rows = [
        {
            "prompt": "x" * (20 + i % 17), "completion": "y" * (60 + i * 3 % 40), "chosen": "c" * (50 + i % 30),
            "rejected": "r" * (40 + i % 20),
        }
        for i in range(32)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    values: dict[str, Any] = {
        "api": 1,
        "model": {"use": "llama", "config": CONFIG},
        "tokenizer": "bytes",
        "data": {"train": {"use": "instruct", "path": "rows.jsonl"}, "max_length": 128},
        "method": "sft",
        "loggers": [],
        "train": {"steps": 3, "batch_size": 4, "micro_batch_size": 2},
        "output_dir": str(folder / "run"),
    }
    for name, value in {**changes, **more}.items():
        values[name] = {**values[name], **value} if name in ("model", "data", "train") else value
    return make_job(values, registry, folder)


def opened(job: Job, registry: Registry) -> tuple[Models, Workload]:
    """What a rehearsal of the job needs."""
    policy = open_model(job.model, job, registry, weights=False)
    tokenizer = job.tokenizer.load(policy.checkpoint, job.base)
    others = open_frozen(job, registry, tokenizer, policy, weights=False)
    return Models(policy, others), workload_of(job, tokenizer, torch.device("cpu"))


def measured(job: Job, registry: Registry) -> tuple[int, int]:
    """The most bytes of tensors alive in the steps of a real run, and those of its optimizer's state. What is offloaded
    goes to numpy's memory, which is not counted: a CPU is the host itself."""
    here = job.model_copy(update={"train": job.train.model_copy(update={"activation_offloading": False})})
    run = assemble(here, registry)
    if job.train.activation_offloading:
        offload_inputs(run.model, job.train.activation_checkpointing_every, NUMPY)
    job.method.prepare(run)
    trainer = Trainer(run, RunEventBus([]), Saver(RunDir(job.output_dir), job.train, run.world.device))
    meter = Meter()
    for model in (run.model, *run.frozen.values()):
        meter.hold([*model.parameters(), *model.buffers()])
    with meter:
        for micro_batches in job.method.batches(run):
            trainer.step(micro_batches)
            run.progress.step += 1
            if run.progress.step == run.total_steps:
                break
    state = (value for entry in run.optimizer.state.values() for value in entry.values())
    return meter.peak, held_bytes(value for value in state if isinstance(value, torch.Tensor))
