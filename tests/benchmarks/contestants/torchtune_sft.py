"""torchtune's own recipe, full_finetune_single_device, on the same packs, with its chunked cross-entropy."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
import torchtune
from omegaconf import OmegaConf

from tests.benchmarks.contestants.report import FOLDER, Clock, items, row

NAME = "tests.benchmarks.contestants.torchtune_sft"
CLOCK = Clock()


class Packs(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """As torchtune's PackedDataset makes them: padded to the length of a pack, the padding a document."""

    def __init__(self, tokenizer: object, packed: bool, length: int) -> None:
        self.length, self.items = length, items()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = self.items[index]
        room = self.length - len(item["tokens"])
        seq_lens = [*item["seq_lens"], *([room] if room else [])]
        return {
            "tokens": torch.tensor([*item["tokens"], *[0] * room]),
            "labels": torch.tensor([-100, *item["labels"][:-1], *[-100] * room]),
            "input_pos": torch.cat([torch.arange(n) for n in seq_lens]),
            "seq_lens": torch.tensor(seq_lens),
        }


class Padding:
    """All that the recipe asks of a tokenizer when the data is packed."""

    pad_id = 0


class Timing:
    """The recipe's metric logger."""

    def log_config(self, config: object) -> None:
        pass

    def log_dict(self, payload: dict[str, Any], step: int) -> None:
        CLOCK.step(float(payload["loss"]))

    def close(self) -> None:
        pass


def configured() -> Any:
    values = row()
    shape = values["config"]
    return OmegaConf.create(
        {
            "output_dir": str(FOLDER / "torchtune"),
            "device": "cpu",
            "dtype": "fp32",
            "seed": 0,
            "epochs": 1,
            "max_steps_per_epoch": values["steps"],
            "batch_size": values["micro_batch_size"],
            "gradient_accumulation_steps": values["batch_size"] // values["micro_batch_size"],
            "clip_grad_norm": 1.0,
            "shuffle": False,
            "compile": False,
            "optimizer_in_bwd": False,
            "resume_from_checkpoint": False,
            "log_every_n_steps": 1,
            "model": {
                "_component_": "torchtune.models.llama3_2.llama3_2",
                "vocab_size": shape["vocab_size"],
                "num_layers": shape["num_hidden_layers"],
                "num_heads": shape["num_attention_heads"],
                "num_kv_heads": shape["num_key_value_heads"],
                "embed_dim": shape["hidden_size"],
                "intermediate_dim": shape["intermediate_size"],
                "max_seq_len": values["max_length"],
            },
            "checkpointer": {
                "_component_": "torchtune.training.FullModelHFCheckpointer",
                "checkpoint_dir": values["model"],
                "checkpoint_files": ["model.safetensors"],
                "output_dir": str(FOLDER / "torchtune"),
                "model_type": "LLAMA3_2",
            },
            "tokenizer": {"_component_": f"{NAME}.Padding"},
            "dataset": {"_component_": f"{NAME}.Packs", "packed": True, "length": values["max_length"]},
            "metric_logger": {"_component_": f"{NAME}.Timing"},
            "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
            "optimizer": {"_component_": "torch.optim.AdamW", "lr": values["lr"], "weight_decay": 0, "fused": True},
        }
    )


def recipe_class(name: str, recipe: str) -> Any:
    """The class of a recipe, which torchtune installs beside its package, not to be imported."""
    path = Path(torchtune.__file__).parents[1] / "recipes" / f"{recipe}.py"
    spec = importlib.util.spec_from_file_location(recipe, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


if __name__ == "__main__":
    sys.modules[NAME] = sys.modules["__main__"]  # where its configuration finds what is defined here
    config = configured()
    recipe = recipe_class("FullFinetuneRecipeSingleDevice", "full_finetune_single_device")(config)
    recipe.setup(config)
    recipe.save_checkpoint = lambda epoch: None  # what is measured are the steps
    CLOCK.start()
    recipe.train()
    CLOCK.tell()
