"""TRL's SFTTrainer on the same packs: padding-free, SDPA, fused AdamW, PEFT where the row has an adapter."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from tests.benchmarks.contestants.report import FOLDER, Clock, items, row

ROW, CLOCK = row(), Clock()


class Timing(TrainerCallback):
    """Losses are logged right after their step."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        CLOCK.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            CLOCK.step(float(logs["loss"]))


def packs() -> Dataset:
    """In TRL's form: labels are of the token itself."""
    return Dataset.from_list(
        [{"input_ids": i["tokens"], "labels": [-100, *i["labels"][:-1]], "seq_lengths": i["seq_lens"]} for i in items()]
    )


def model() -> Any:
    loaded = AutoModelForCausalLM.from_pretrained(ROW["model"], dtype=torch.float32, attn_implementation="sdpa")
    if not (FOLDER / "adapter").exists():
        return loaded
    from peft import PeftModel

    return PeftModel.from_pretrained(loaded, FOLDER / "adapter", is_trainable=True)


config = SFTConfig(
    output_dir=str(FOLDER / "trl"),
    max_steps=ROW["steps"],
    per_device_train_batch_size=ROW["micro_batch_size"],
    gradient_accumulation_steps=ROW["batch_size"] // ROW["micro_batch_size"],
    learning_rate=ROW["lr"],
    lr_scheduler_type="constant",
    optim="adamw_torch_fused",
    max_grad_norm=1.0,
    padding_free=True,
    max_length=None,
    train_sampling_strategy="sequential",
    logging_steps=1,
    save_strategy="no",
    report_to=[],
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    dataloader_pin_memory=False,
    disable_tqdm=True,
)
tokenizer = AutoTokenizer.from_pretrained(ROW["model"])
trainer = SFTTrainer(model(), config, train_dataset=packs(), processing_class=tokenizer, callbacks=[Timing()])
trainer.train()
CLOCK.tell()
