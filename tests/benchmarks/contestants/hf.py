"""What TRL's trainers are given alike: the arguments, the clock, the model with the row's adapter."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from tests.benchmarks.contestants.report import FOLDER, Clock, row

ROW, CLOCK = row(), Clock()
GPU = torch.cuda.is_available()
ARGUMENTS: dict[str, Any] = {
    "output_dir": str(FOLDER / "trl"),
    "max_steps": ROW["steps"],
    "per_device_train_batch_size": ROW["micro_batch_size"],
    "gradient_accumulation_steps": ROW["batch_size"] // ROW["micro_batch_size"],
    "learning_rate": ROW["lr"],
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch_fused",
    "max_grad_norm": 1.0,
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": not GPU,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
}
"""As our job has it, and what an informed user sets; weights and arithmetic are in the dtype of the row."""


class Timing(TrainerCallback):
    """Losses are logged right after their step."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        CLOCK.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            CLOCK.step(float(logs["loss"]))


def model(path: str = ROW["model"], **options: Any) -> Any:
    """The model in the dtype of the row with SDPA; with the adapter our run starts from, where there is one."""
    loaded = AutoModelForCausalLM.from_pretrained(
        path, dtype=getattr(torch, ROW.get("dtype", "float32")), attn_implementation="sdpa", **options
    )
    if not (FOLDER / "adapter").exists():
        return loaded
    from peft import PeftModel

    return PeftModel.from_pretrained(loaded, FOLDER / "adapter", is_trainable=True)


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(ROW["model"])
