"""An adapter's folder as PEFT has it: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ptsdk.errors import Problem, UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts in front of a parameter's name."""
HUB = "hf://"

NEUTRAL: dict[str, tuple[object, ...]] = {
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
    "megatron_core": ("megatron.core",),
    "qalora_group_size": (16,),
}
"""Values under which an option means nothing here: defaults, or a way to start that left no trace
in the base. Of any other option only an empty value does."""

DESCRIPTIVE = frozenset({"peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"})
"""Keys that do not change what an adapter computes."""


def config_of(
    *, rank: int, alpha: float, dropout: float, targets: list[str], rslora: bool, dora: bool, base: str | None
) -> dict[str, Any]:
    """The keys of adapter_config.json, those that every PEFT since DoRA (0.9) knows.

    A base on the hub, ``hf://org/name@revision``, is named as PEFT does.
    """
    on_hub = base is not None and base.startswith(HUB)
    name, _, revision = base.removeprefix(HUB).partition("@") if base and on_hub else (base, "", "")
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "revision": revision or None,
        "auto_mapping": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": dropout,
        "target_modules": targets,
        "use_rslora": rslora,
        "use_dora": dora,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write both files into ``folder``, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {PREFIX + name: tensor.contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """The keys of adapter_config.json.

    Raises:
        UserError: there is none, or it is not a JSON object.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            Problem(f"no {CONFIG} here", "give the folder that an adapter was saved to", str(file))
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(Problem(f"not JSON: {error}", "save the adapter again", str(file))) from None
    if not isinstance(config, dict):
        raise UserError(Problem("not a JSON object", "save the adapter again", str(file)))
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The adapter's tensors by parameter name, without PEFT's prefix.

    Raises:
        UserError: there are none, they are damaged, or they are not a PEFT adapter's.
    """
    file = folder / WEIGHTS
    if not file.exists():
        pickled = (folder / "adapter_model.bin").exists()
        hint = "adapter_model.bin is a pickle, which is never opened; save it as safetensors" if pickled else ""
        raise UserError(Problem(f"no {WEIGHTS} here", hint, str(file)))
    try:
        tensors = safetensors.torch.load_file(file)
    except safetensors.SafetensorError as error:
        raise UserError(Problem(f"damaged: {error}", "copy or save the adapter again", str(file))) from None
    foreign = sorted(name for name in tensors if not name.startswith(PREFIX))
    if foreign:
        raise UserError(Problem(f"{foreign[0]} does not start with {PREFIX}", "save the adapter with PEFT", str(file)))
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


def check_fit(folder: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    """See that the tensors are the expected ones, of the expected shapes.

    Raises:
        UserError: naming every one that is missing, unexpected, or of another shape.
    """
    faults = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    faults += [f"{name} has no place in this model" for name in sorted(tensors.keys() - expected.keys())]
    faults += [
        f"{name} is {list(tensors[name].shape)}, the model needs {list(expected[name])}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name]
    ]
    if faults:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        hint = "this adapter belongs to another model, or was trained with other adapter.targets or adapter.rank"
        raise UserError(Problem(f"the adapter does not fit the model: {shown}", hint, str(folder / WEIGHTS)))


def check_supported(config: Mapping[str, Any], handled: frozenset[str]) -> None:
    """Refuse every option of PEFT that would make it compute something else.

    Raises:
        UserError: naming each option and its value.
    """
    ignorable = handled | DESCRIPTIVE
    refused = {
        key: value
        for key, value in config.items()
        if key not in ignorable and (value not in NEUTRAL[key] if key in NEUTRAL else bool(value))
    }
    if refused:
        hint = "merge this adapter into its base with PEFT (merge_and_unload), and load the result as a model"
        raise UserError(
            *(Problem(f"{CONFIG}: {key} = {value!r} is not supported", hint) for key, value in refused.items())
        )
