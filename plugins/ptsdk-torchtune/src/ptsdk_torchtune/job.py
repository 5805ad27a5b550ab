"""A config of torchtune as a job."""

from __future__ import annotations

from typing import Any

from ptsdk.errors import UserError
from ptsdk_torchtune.config import Config
from ptsdk_torchtune.data import data

ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "output_proj": "o_proj"}
MLP = ("gate_proj", "up_proj", "down_proj")
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
LOGGERS = {"DiskLogger": "jsonl", "StdoutLogger": "console", "WandBLogger": "wandb"}
OPTIMIZERS = {
    "torch.optim.AdamW": "adamw",
    "torch.optim.Adam": "adamw",
    "torch.optim.SGD": "sgd",
    "bitsandbytes.optim.AdamW": "adamw",
    "bitsandbytes.optim.PagedAdamW": "adamw",
    "bitsandbytes.optim.AdamW8bit": "adamw-8bit",
    "bitsandbytes.optim.PagedAdamW8bit": "adamw-8bit",
    "torchao.optim.AdamW8bit": "adamw-8bit",
    "torchao.optim.AdamW4bit": "adamw-4bit",
    "torchao.prototype.low_bit_optim.AdamW8bit": "adamw-8bit",
    "torchao.prototype.low_bit_optim.AdamW4bit": "adamw-4bit",
}
CROSS_ENTROPY = ("CrossEntropyLoss", "CEWithChunkedOutputLoss", "LinearCrossEntropyLoss")
DIVERGENCES = {"ForwardKL": "forward_kl", "ReverseKL": "reverse_kl", "SymmetricKL": "jsd"}


def job_of(config: Config) -> dict[str, Any]:
    """The job; what it cannot say is in ``config.problems`` and ``config.notes``.

    Raises:
        UserError: it is of a recipe that has no counterpart at all.
    """
    if config.get("optimizer") is None:
        raise UserError("this config trains nothing", hint="see `ptsdk eval`, `ptsdk generate` and `ptsdk export`")
    if config.get("policy_model") is not None or config.get("ppo_epochs") is not None:
        raise UserError("PPO with a model of values has no counterpart", hint="see `ptsdk show method grpo`")
    job = {
        "api": 1,
        "model": _model(config, "model", "checkpointer"),
        **_tokenizer(config),
        "data": data(config),
        **_method(config),
        **_adapter(config),
        **_optimizer(config),
        **_schedule(config),
        "loggers": ["console", *_logger(config)],
        "train": _train(config),
        "output_dir": str(config.get("output_dir", "runs/migrated")),
    }
    for path in config.rest():
        config.note(path, "not carried over")
    return job


def _model(config: Config, model: str, checkpointer: str) -> dict[str, Any]:
    """``path`` and ``dtype``: the family is found from config.json."""
    name, folder = config.component(model), config.get(f"{checkpointer}.checkpoint_dir")
    if "vision" in name or "clip" in name or "classifier" in name:
        config.refuse(model, f"{name} has no counterpart", "only causal language models are trained")
    if folder is None:
        config.refuse(
            checkpointer, "it names no checkpoint_dir", "give the folder of the model in Hugging Face's format"
        )
    if config.component(checkpointer).endswith("MetaCheckpointer"):
        config.note(f"{checkpointer}.checkpoint_dir", "here the model's folder in Hugging Face's format is read")
    if config.get(f"{checkpointer}.adapter_checkpoint") or config.get(f"{checkpointer}.recipe_checkpoint"):
        config.note(checkpointer, "a run of torchtune cannot be continued; its exported model can be trained further")
    dtype = config.get("dtype", "bf16")
    if dtype not in DTYPES:
        config.refuse("dtype", f"weights in {dtype} are not trained", f"it can be {', '.join(DTYPES)}")
    return {"path": str(folder), "dtype": DTYPES.get(dtype)}


def _tokenizer(config: Config) -> dict[str, Any]:
    """Left out where it is the model's own."""
    path, model = config.get("tokenizer.path"), str(config.get("checkpointer.checkpoint_dir", ""))
    config.component("tokenizer")
    if config.get("tokenizer.prompt_template"):
        config.note(
            "tokenizer.prompt_template", "here the tokenizer's own chat template decides; or tokenizer.chat_template"
        )
    folder = str(path).rpartition("/")[0]
    if path is None or (model and f"{folder}/".startswith(model.rstrip("/") + "/")):
        return {}
    return {"tokenizer": {"use": "auto", "path": folder or "."}}


def _method(config: Config) -> dict[str, Any]:
    """``method`` and ``loss``: which recipe a config is of shows in what it has."""
    loss = config.component("loss")
    reference, model = (config.get(f"{key}.checkpoint_dir") for key in ("ref_checkpointer", "checkpointer"))
    if reference not in (None, model):
        config.refuse(
            "ref_checkpointer", "the reference is the model that the run starts from", "use one model for both"
        )
    config.component("teacher_model")
    if config.get("kd_loss") is not None:
        return _distillation(config)
    name = loss.rpartition(".")[2]
    if name == "DPOLoss":
        options = {key: config.get(f"loss.{key}") for key in ("beta", "label_smoothing")}
        return {"method": "dpo", "loss": _with("sigmoid", options)}
    if name == "RSOLoss":
        return {"method": "dpo", "loss": _with("hinge", {"beta": config.get("loss.gamma")})}
    if loss and name not in CROSS_ENTROPY:
        config.refuse("loss", f"{loss} has no counterpart", "see `ptsdk list loss`")
    return {"method": "sft"}


def _distillation(config: Config) -> dict[str, Any]:
    name = config.component("kd_loss").rpartition(".")[2]
    known = next((ours for theirs, ours in DIVERGENCES.items() if name.startswith(theirs)), None)
    if known is None:
        config.refuse("kd_loss", f"{name} has no counterpart", "see `ptsdk list loss`")
    if known == "jsd":
        config.note(
            "kd_loss", "jsd is of the distributions' mean; torchtune's symmetric KL is a sum of both directions"
        )
    config.get("kd_loss.num_output_chunks")
    config.get("kd_loss.ignore_index")
    teacher = _model(config, "teacher_model", "teacher_checkpointer")
    return {"method": {"use": "kd", "teacher": teacher, "ratio": config.get("kd_ratio", 0.5)}, "loss": known}


def _adapter(config: Config) -> dict[str, Any]:
    """``adapter`` and ``quantizer``."""
    name = config.component("model").rpartition(".")[2]
    parts: dict[str, Any] = {}
    if name.startswith("qlora_") or config.get("model.quantize_base", False):
        parts["quantizer"] = "nf4"
    if qat := config.component("quantizer"):
        parts["quantizer"] = _qat(config, qat)
    if name.startswith(("lora_", "qlora_")):
        use = "dora" if config.get("model.use_dora", False) else "lora"
        options = {
            "rank": config.get("model.lora_rank", 8),
            "alpha": config.get("model.lora_alpha", 16),
            "dropout": config.get("model.lora_dropout", 0.0),
            "targets": _targets(config),
        }
        parts["adapter"] = {"use": use, **options}
    return parts


def _targets(config: Config) -> str | list[str]:
    attention = config.get("model.lora_attn_modules", [])
    targets = [ATTENTION.get(one, one) for one in attention] + list(
        MLP if config.get("model.apply_lora_to_mlp", False) else ()
    )
    if config.get("model.apply_lora_to_output", False):
        config.refuse("model.apply_lora_to_output", "the head is not adapted", "set it to False")
    return "all-linear" if set(targets) == {*ATTENTION.values(), *MLP} else targets


def _qat(config: Config, name: str) -> dict[str, Any]:
    short = name.rpartition(".")[2]
    schemes = {"Int8DynActInt4WeightQATQuantizer": "int8-int4", "Int4WeightOnlyQATQuantizer": "int4"}
    if short not in schemes:
        config.refuse("quantizer", f"{short} has no counterpart", f"known are {', '.join(schemes)}")
    return {"use": "qat", "scheme": schemes.get(short), "group_size": config.get("quantizer.groupsize", 256)}


def _optimizer(config: Config) -> dict[str, Any]:
    name = config.component("optimizer")
    use = OPTIMIZERS.get(name)
    if use is None:
        config.refuse(
            "optimizer",
            f"{name or 'an optimizer without a `_component_`'} has no counterpart",
            "see `ptsdk list optimizer`",
        )
        return {}
    if "Paged" in name:
        config.note("optimizer", "its state stays on the device: it is not paged to the host")
    decay = config.get("optimizer.weight_decay", 0.0 if name.endswith(("SGD", ".Adam")) else 0.01)
    if name.endswith(".Adam") and decay:
        config.refuse("optimizer.weight_decay", "Adam adds the decay to the gradient", "use AdamW, which decouples it")
    options = {key: config.get(f"optimizer.{key}") for key in ("betas", "eps", "momentum", "nesterov")}
    return {"optimizer": _with(use, {"lr": config.get("optimizer.lr", 1e-3), **options, "weight_decay": decay})}


def _schedule(config: Config) -> dict[str, Any]:
    """Constant where there is none."""
    name = config.component("lr_scheduler")
    if not name:
        return {"schedule": "constant"}
    if not name.endswith("get_cosine_schedule_with_warmup"):
        config.refuse("lr_scheduler", f"{name} has no counterpart", "see `ptsdk list schedule`")
    if config.get("lr_scheduler.num_cycles", 0.5) != 0.5:
        config.refuse("lr_scheduler.num_cycles", "only half a cosine is known", "leave it out")
    return {"schedule": {"use": "cosine", "warmup": config.get("lr_scheduler.num_warmup_steps", 0)}}


def _logger(config: Config) -> list[Any]:
    name = config.component("metric_logger").rpartition(".")[2]
    known = LOGGERS.get(name)
    if name and known is None:
        config.note(
            "metric_logger", f"{name} has no counterpart; metrics.jsonl in the output directory has all numbers"
        )
    if known != "wandb":
        return ["jsonl"]
    options = {key: config.get(f"metric_logger.{key}") for key in ("project", "entity", "group", "name")}
    return ["jsonl", _with("wandb", options)]


def _train(config: Config) -> dict[str, Any]:
    size, times = config.get("batch_size", 1), config.get("gradient_accumulation_steps", 1)
    config.note(
        "batch_size", f"{size} x {times} sequences a step: of one process. Multiply train.batch_size by their number"
    )
    section = {
        **_length(config),
        "batch_size": size * times,
        "micro_batch_size": size,
        "seed": config.get("seed", 0),
        "clip_grad_norm": config.get("clip_grad_norm"),
    }
    if config.get("compile", False):
        section["compile"] = {"model": True, "loss": True}
    section |= _checkpointing(config)
    if config.get("enable_activation_offloading", False):
        section["activation_offloading"] = True
    if config.get("optimizer_in_bwd", False):
        section["optimizer_in_backward"] = True
    for key in ("fsdp_cpu_offload", "resume_from_checkpoint"):
        if config.get(key, False):
            config.note(key, "not carried over")
    for key in ("custom_sharded_layers", "fsdp_reshard_after_forward", "tensor_parallel_dim", "tensor_parallel_plan"):
        if config.get(key) is not None:
            config.note(key, "on several GPUs: strategy fsdp2, and `ptsdk run --nproc N`")
    return section


def _length(config: Config) -> dict[str, Any]:
    epochs, most = config.get("epochs", 1), config.get("max_steps_per_epoch", 0)
    if not most:
        return {"epochs": epochs}
    config.note("max_steps_per_epoch", "steps are counted over all epochs: one that has fewer is followed by the next")
    return {"steps": epochs * most}


def _checkpointing(config: Config) -> dict[str, Any]:
    mode, option = config.get("ac_mode"), config.get("ac_option")
    asked = config.get("enable_activation_checkpointing", False)
    if mode == "selective" and isinstance(option, int):
        return {"activation_checkpointing": "full", "activation_checkpointing_every": option}
    if mode == "selective":
        return {"activation_checkpointing": "selective"}
    return {"activation_checkpointing": "full"} if asked or mode == "full" else {}


def _with(use: str, options: dict[str, Any]) -> Any:
    """A component and those of its options that are given."""
    given = {key: value for key, value in options.items() if value is not None}
    return {"use": use, **given} if given else use
