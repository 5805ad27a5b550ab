"""A checkpoint that transformers wrote, and what TRL's SFTTrainer makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.conftest import WORDS

SPECIALS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<pad>")


def save_checkpoint(folder: Path, template: str | None = None) -> Path:
    """A tiny random Llama with a tokenizer that adds BOS, and with a chat template where given."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = new_tokenizer(template)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer) + 3,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def new_tokenizer(template: str | None) -> Any:
    """Byte-level BPE; padding has a token of its own, for transformers embeds it without a gradient."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=list(SPECIALS), initial_alphabet=alphabet)
    backend.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|im_end|>" if template else "</s>",
        pad_token="<pad>",
    )
    tokenizer.chat_template = template
    return tokenizer


def trl_history(
    checkpoint: Path, rows: list[dict[str, Any]], out: Path, adapter: Path | None = None, **options: Any
) -> list[dict[str, float]]:
    """The log of each step of SFTTrainer: ``loss``, ``grad_norm``, ``learning_rate``.

    Args:
        checkpoint: model and tokenizer.
        rows: in TRL's form, or with ``input_ids``.
        out: scratch.
        adapter: a PEFT folder that is trained instead of the model.
        options: of SFTConfig, over constant AdamW on batches of 4 x 2 in the order of the rows.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    defaults = {
        "output_dir": str(out),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": 96,
    }
    trainer = SFTTrainer(
        model,
        SFTConfig(**{**defaults, **options}),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
    )
    trainer.train()
    return [row for row in trainer.state.log_history if "grad_norm" in row]
