"""The first five steps of supervised fine-tuning, beside TRL's SFTTrainer on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from tests.conftest import WORDS, WriteJob, metrics, ptsdk

STEPS, LR = 5, 1e-3


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny random Llama with a word tokenizer that adds BOS, saved by transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ["<unk>", "<s>", "</s>"]
    backend.train_from_iterator(
        [" ".join(WORDS)] * 3,
        trainers.BpeTrainer(
            vocab_size=320, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.vocab_size + 3,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        )
    )
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trl_history(checkpoint: Path, rows: Path, out: Path, weight_decay: float) -> list[dict[str, float]]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    data = [json.loads(line) for line in rows.read_text().splitlines()]
    args = SFTConfig(
        output_dir=str(out),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        learning_rate=LR,
        lr_scheduler_type="constant",
        weight_decay=weight_decay,
        max_grad_norm=1.0,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=96,
    )
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    trainer = SFTTrainer(
        model, args, train_dataset=Dataset.from_list(data), processing_class=AutoTokenizer.from_pretrained(checkpoint)
    )
    trainer.train()
    return [row for row in trainer.state.log_history if "grad_norm" in row]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_losses_and_gradient_norms(
    checkpoint: Path, rows: Path, job: dict[str, Any], write_job: WriteJob, tmp_path: Path, weight_decay: float
) -> None:
    job["model"] = {"path": str(checkpoint), "dtype": "float32"}
    del job["tokenizer"]
    job["data"]["shuffle"] = False
    job["optimizer"] = {"use": "adamw", "lr": LR, "weight_decay": weight_decay}
    job["train"] = {"steps": STEPS, "batch_size": 8, "micro_batch_size": 2, "clip_grad_norm": 1.0}
    done = ptsdk("run", str(write_job(job)))
    assert done.returncode == 0, done.stderr
    ours = metrics(tmp_path / "run")
    theirs = trl_history(checkpoint, rows, tmp_path / "trl", weight_decay)
    assert len(ours) == len(theirs) == STEPS
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
