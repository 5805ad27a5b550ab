"""TRL's SFTTrainer on the same packs, padding-free; ``nf4``: on a base that bitsandbytes quantised; ``liger``:
with the kernels of liger-kernel, for a GPU."""

from __future__ import annotations

import sys
from typing import Any

import torch
from datasets import Dataset
from transformers import BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from tests.benchmarks.contestants.hf import ARGUMENTS, CLOCK, Timing, model, tokenizer
from tests.benchmarks.contestants.report import items

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}


def packs() -> Dataset:
    """In TRL's form: labels are of the token itself."""
    return Dataset.from_list(
        [{"input_ids": i["tokens"], "labels": [-100, *i["labels"][:-1]], "seq_lengths": i["seq_lens"]} for i in items()]
    )


def main() -> None:
    options: dict[str, Any] = {"quantization_config": BitsAndBytesConfig(**NF4)} if "nf4" in sys.argv[2:] else {}
    liger = "liger" in sys.argv[2:]
    config = SFTConfig(**ARGUMENTS, padding_free=True, max_length=None, use_liger_kernel=liger)
    trainer = SFTTrainer(
        model(**options), config, train_dataset=packs(), processing_class=tokenizer(), callbacks=[Timing()]
    )
    trainer.train()
    CLOCK.tell()


main()
