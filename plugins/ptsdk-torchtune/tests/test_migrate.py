"""Configs in torchtune's form, and the jobs that come out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptsdk.cli.main import main
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.testing.checkpoints import tiny_checkpoint

LORA: dict[str, Any] = {
    "output_dir": "out/lora",
    "model": {
        "_component_": "torchtune.models.llama3_2.lora_llama3_2_1b",
        "lora_attn_modules": ["q_proj", "v_proj", "output_proj"],
        "apply_lora_to_mlp": True,
        "lora_rank": 64,
        "lora_alpha": 128,
    },
    "tokenizer": {"_component_": "torchtune.models.llama3.llama3_tokenizer", "path": "model/original/tokenizer.model"},
    "checkpointer": {
        "_component_": "torchtune.training.FullModelHFCheckpointer",
        "checkpoint_dir": "model/",
        "checkpoint_files": ["model.safetensors"],
        "output_dir": "${output_dir}",
    },
    "dataset": {"_component_": "torchtune.datasets.alpaca_cleaned_dataset", "packed": True},
    "batch_size": 4,
    "gradient_accumulation_steps": 8,
    "epochs": 3,
    "optimizer": {"_component_": "torch.optim.AdamW", "fused": True, "lr": 3e-4},
    "lr_scheduler": {
        "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
        "num_warmup_steps": 100,
    },
    "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
    "clip_grad_norm": None,
    "compile": True,
    "dtype": "bf16",
    "enable_activation_checkpointing": True,
    "metric_logger": {"_component_": "torchtune.training.metric_logging.WandBLogger", "project": "mine"},
    "device": "cuda",
    "log_every_n_steps": 1,
    "profiler": {"_component_": "torchtune.training.setup_torch_profiler", "enabled": False},
}
PATHS = ["tokenizer.max_seq_len", "dataset.train_on_input", "dataset", "batch_size"]


def migrated(folder: Path, config: dict[str, Any], capsys: Any) -> tuple[dict[str, Any], list[str]]:
    """The job, and the paths that are told of."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert main(["migrate", str(folder / "config.yaml"), "--json"]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)
    return told["job"], [note.partition(":")[0] for note in told["notes"]]


def test_a_config_of_lora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, paths = migrated(tmp_path, LORA, capsys)
    assert job == {
        "api": 1,
        "model": {"path": "model/", "dtype": "bfloat16"},
        "data": {"train": {"use": "instruct", "path": "hf://datasets/yahma/alpaca-cleaned"}, "packing": True},
        "method": "sft",
        "adapter": {
            "use": "lora", "rank": 64, "alpha": 128, "dropout": 0.0,
            "targets": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        },
        "optimizer": {"use": "adamw", "lr": 3e-4, "weight_decay": 0.01},
        "schedule": {"use": "cosine", "warmup": 100},
        "loggers": ["console", "jsonl", {"use": "wandb", "project": "mine"}],
        "train": {
            "epochs": 3, "batch_size": 32, "micro_batch_size": 4, "seed": 0, "clip_grad_norm": None,
            "compile": {"model": True, "loss": True}, "activation_checkpointing": "full",
        },
        "output_dir": "out/lora",
    }  # fmt: skip
    assert sorted(paths) == sorted(PATHS)


DPO = {"loss": {"_component_": "torchtune.rlhf.loss.DPOLoss", "beta": 0.2}, "max_steps_per_epoch": 10}
KD = {
    "kd_loss": {"_component_": "torchtune.modules.loss.ForwardKLWithChunkedOutputLoss"},
    "kd_ratio": 0.3,
    "teacher_model": {"_component_": "torchtune.models.llama3_1.llama3_1_8b"},
    "teacher_checkpointer": {"_component_": "x.FullModelHFCheckpointer", "checkpoint_dir": "teacher"},
}
QAT = {"quantizer": {"_component_": "torchtune.training.Int8DynActInt4WeightQATQuantizer", "groupsize": 16}}
FULL = {"model": {"_component_": "torchtune.models.qwen2.qwen2_0_5b"}, "ac_mode": "selective", "ac_option": 2}
QLORA = {"model": {**LORA["model"], "_component_": "torchtune.models.llama3_2.qlora_llama3_2_1b", "use_dora": True}}
EVERY = {"lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"]}


@pytest.mark.parametrize(
    ("change", "key", "expected"),
    [
        (DPO, "method", "dpo"),
        (DPO, "loss", {"use": "sigmoid", "beta": 0.2}),
        ({"loss": {"_component_": "torchtune.rlhf.loss.RSOLoss"}}, "loss", "hinge"),
        (KD, "method", {"use": "kd", "teacher": {"path": "teacher", "dtype": "bfloat16"}, "ratio": 0.3}),
        (KD, "loss", "forward_kl"),
        (QAT, "quantizer", {"use": "qat", "scheme": "int8-int4", "group_size": 16}),
        (QLORA, "quantizer", "nf4"),
        (
            {"model": {**LORA["model"], **EVERY}}, "adapter",
            {"use": "lora", "rank": 64, "alpha": 128, "dropout": 0.0, "targets": "all-linear"},
        ),
        (
            {"optimizer": {"_component_": "bitsandbytes.optim.PagedAdamW8bit", "lr": 2e-5}}, "optimizer",
            {"use": "adamw-8bit", "lr": 2e-5, "weight_decay": 0.01},
        ),
        (
            {"optimizer": {"_component_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}}, "optimizer",
            {"use": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0},
        ),
        ({"lr_scheduler": None}, "schedule", "constant"),
        (
            {"tokenizer": {"_component_": "x", "path": "elsewhere/tokenizer.model"}}, "tokenizer",
            {"use": "auto", "path": "elsewhere"},
        ),
        ({"output_dir": "${checkpointer.checkpoint_dir}out"}, "output_dir", "model/out"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_key(change: Any, key: str, expected: Any, tmp_path: Path, capsys: Any) -> None:
    assert migrated(tmp_path, {**LORA, **change}, capsys)[0][key] == expected


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (
            {"_component_": "d.chat_dataset", "source": "json", "data_files": "a.jsonl", "conversation_column": "chat",
             "conversation_style": "openai"},
            {"use": "chat", "path": "a.jsonl", "columns": {"messages": "chat"}},
        ),
        (
            {"_component_": "d.instruct_dataset", "source": "o/n", "split": "train[:10%]",
             "column_map": {"output": "answer"}},
            {"use": "instruct", "path": "hf://datasets/o/n", "split": "train[:10%]",
             "columns": {"prompt": "input", "completion": "answer"}},
        ),
        (
            {"_component_": "d.wikitext_dataset"},
            {"use": "text", "path": "hf://datasets/EleutherAI/wikitext_document_level/wikitext-103-v1",
             "columns": {"text": "page"}},
        ),
        (
            {"_component_": "d.stack_exchange_paired_dataset"},
            {"use": "preference", "path": "hf://datasets/lvwerra/stack-exchange-paired",
             "columns": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"}},
        ),
    ],
)  # fmt: skip
def test_data_sets(dataset: Any, expected: Any, tmp_path: Path, capsys: Any) -> None:
    assert migrated(tmp_path, {**LORA, "dataset": dataset}, capsys)[0]["data"]["train"] == expected


def test_lengths_and_checkpointing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    length = {"tokenizer": {**LORA["tokenizer"], "max_seq_len": 1024}}
    job, paths = migrated(tmp_path, {**LORA, **DPO, **FULL, **length}, capsys)
    assert job["train"]["steps"] == 30 and "epochs" not in job["train"] and job["data"]["max_length"] == 1024
    assert job["train"]["activation_checkpointing"] == "full"
    assert job["train"]["activation_checkpointing_every"] == 2 and "adapter" not in job
    assert "max_steps_per_epoch" in paths and "tokenizer.max_seq_len" not in paths


def test_a_key_that_nothing_is_made_of_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, paths = migrated(tmp_path, {**LORA, "my_own": {"option": 1}, "fsdp_cpu_offload": True}, capsys)
    assert sorted({*paths} - {*PATHS}) == ["fsdp_cpu_offload", "my_own.option"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": {"_component_": "torchtune.models.llama3_2_vision.llama3_2_vision_11b"}}, "has no counterpart"),
        ({"model": {**LORA["model"], "apply_lora_to_output": True}}, "the head is not adapted"),
        ({"dataset": {"_component_": "torchtune.datasets.multimodal.the_cauldron_dataset"}}, "the_cauldron_dataset"),
        ({"optimizer": {"_component_": "torch.optim.Adagrad"}}, "torch.optim.Adagrad has no counterpart"),
        ({"optimizer": None}, "trains nothing"),
        ({"ppo_epochs": 2}, "PPO"),
        ({"loss": {"_component_": "mine.Loss"}}, "mine.Loss has no counterpart"),
        ({"lr_scheduler": {"_component_": "torchtune.training.lr_schedulers.get_rex_scheduler"}}, "get_rex_scheduler"),
        ({"dtype": "fp16"}, "fp16"),
        ({"batch_size": "four"}, "'four' is of another kind"),
        ({"max_steps_per_epoch": [1]}, "[1] is of another kind"),
        ({"compile": 2}, "2 is of another kind"),
        ({"epochs": True}, "True is of another kind"),
        ({"dataset": {**LORA["dataset"], "column_map": "input"}}, "'input' is of another kind"),
        ({"output_dir": "${nowhere}"}, "there is no nowhere"),
        ({"output_dir": "${output_dir}"}, "refers to itself"),
    ],
)
def test_what_no_job_can_say_is_refused(change: Any, told: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**LORA, **change}, sort_keys=False))
    assert main(["migrate", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "job.yaml")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "job.yaml").exists()


def test_the_faults_of_a_config_are_told_at_once_with_their_lines(tmp_path: Path, capsys: Any) -> None:
    changed = {**LORA, "dtype": "fp16", "loss": {"_component_": "mine.Loss"}}
    (tmp_path / "config.yaml").write_text(text := yaml.safe_dump(changed, sort_keys=False))
    assert main(["migrate", str(tmp_path / "config.yaml")]) == 2
    error = capsys.readouterr().err
    for key in ("dtype:", "loss:"):
        line = next(i for i, one in enumerate(text.splitlines(), 1) if one.startswith(key))
        assert f"config.yaml:{line}" in error


def test_the_job_that_is_written_can_be_checked(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "model")
    Path("rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    name = "torchtune.datasets.instruct_dataset"
    rows = {"_component_": name, "source": "json", "data_files": "rows.jsonl", "packed": True}
    logger = {"_component_": "torchtune.training.metric_logging.DiskLogger", "log_dir": "${output_dir}/logs"}
    Path("config.yaml").write_text(yaml.safe_dump({**LORA, "dataset": rows, "metric_logger": logger}, sort_keys=False))
    assert main(["migrate", "config.yaml", "--out", "job.yaml"]) == 0
    assert Path("job.yaml").read_text().startswith("# made of torchtune's config.yaml")
    job = load_job(Path("job.yaml"), (), Registry(scan()))
    assert (job.train.batch_size, job.train.micro_batch_size, job.data.packing) == (32, 4, True)
    assert main(["migrate", "config.yaml", "--out", "job.yaml"]) == 2
    assert "exists already" in capsys.readouterr().err
