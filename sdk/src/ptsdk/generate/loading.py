"""A checkpoint, and an adapter on it, as a model that is ready to be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ptsdk import hints
from ptsdk.checkpoint.environment import model_fingerprint
from ptsdk.checkpoint.inside import refuse_links_out
from ptsdk.checkpoint.sources import open_checkpoint
from ptsdk.checkpoint.tokenizers import from_folder
from ptsdk.checkpoint.weights import LazyTensors, build_on_meta, check_names, fill, replace_parameter, resolve_dtype
from ptsdk.contracts.adapter import Adapter
from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.contracts.model import Dtype, ModelFamily
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.tokenizer_files import read_json
from ptsdk.errors import Problem, UserError
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.registry import Registry

CPU = torch.device("cpu")
ADAPTER = "adapter_config.json"
PEFT = "peft"
"""The capability of an adapter that reads PEFT's folders (``Adapter.from_peft``)."""


class Pretrained(NamedTuple):
    """A model in eval mode, and what came with it. ``tokenizer`` is None where there is none."""

    model: CausalLM
    tokenizer: Tokenizer | None
    checkpoint: Checkpoint


def load_pretrained(
    reference: str,
    registry: Registry,
    base: Path,
    dtype: Dtype = "float32",
    adapter: Path | None = None,
    device: torch.device = CPU,
) -> Pretrained:
    """The model a reference names, in eval mode, and its tokenizer.

    Args:
        reference: a folder, a file or a URL.
        registry: finds the family by config.json's ``architectures``, the adapter by its file.
        base: the folder that relative paths are relative to.
        dtype: of the weights; ``auto`` is bfloat16 on an accelerator, float32 on a CPU.
        adapter: a folder as PEFT writes it. Its tokenizer comes first: it is the one trained with.
        device: where the weights go.

    Raises:
        UserError: no such checkpoint, no plugin that reads it, or files that are damaged or do not fit.
        RunError: a source could not be reached.
    """
    checkpoint = open_checkpoint(reference, base, registry)
    folder = None if adapter is None else base / adapter.expanduser()
    model = load_weights(checkpoint, registry, resolve_dtype(dtype, device), folder, device)
    tokenizer = (from_folder(folder) if folder else None) or checkpoint.tokenizer()
    return Pretrained(model, tokenizer, checkpoint)


def load_weights(
    checkpoint: Checkpoint,
    registry: Registry,
    dtype: torch.dtype,
    adapter: Path | None = None,
    device: torch.device = CPU,
) -> CausalLM:
    """The model of an opened checkpoint, in eval mode, with the adapter of a folder on it.

    Raises:
        UserError: no plugin reads one of them, tensors that are missing, unexpected or of another
            shape, or an adapter of another model.
    """
    adaption = find_adapter(adapter, registry) if adapter is not None else None
    if adapter is not None:
        refuse_other_base(checkpoint, adapter)
    model = build_on_meta(find_family(checkpoint, registry), checkpoint.config, dtype)
    names = [name for name, _ in model.named_parameters()]
    check_names(model, names, checkpoint)
    if adaption is not None:
        adaption.apply(model)
    fill(model, LazyTensors(names, checkpoint.tensor), device, dtype, mapped=True)
    if adaption is not None and adapter is not None:
        load_adapter(model, adaption, adapter, device)
    return model.eval()


def refuse_other_base(checkpoint: Checkpoint, adapter: Path) -> None:
    """A run knows the weights that its ``final/`` was trained on: beside any others it is a third model.

    Raises:
        UserError: ``checkpoint`` is not what the run was trained on.
    """
    lock = adapter.resolve().parent / "lock.json"
    if adapter.resolve().name != "final" or not lock.is_file():
        return
    known = read_json(lock).get("model")
    if known and model_fingerprint(checkpoint.path) != known:
        hint = "name that one as the model; a copy of final/ outside its run is not compared"
        raise UserError(f"{checkpoint.path} is not the model that {lock.parent} was trained on", hint=hint)


def load_adapter(model: CausalLM, adapter: Adapter, folder: Path, device: torch.device) -> None:
    """Fill the parameters that ``adapter`` added, in the dtype that it gave them."""
    for name, tensor in adapter.load(folder, model).items():
        replace_parameter(model, name, tensor.to(device, model.get_parameter(name).dtype))


def find_family(checkpoint: Checkpoint, registry: Registry) -> ModelFamily:
    """The family that reads ``checkpoint``.

    Raises:
        UserError: config.json names no architecture, or no installed plugin reads it.
    """
    architectures = checkpoint.config.get("architectures") or [checkpoint.config.get("model_type")]
    if not isinstance(architectures, list) or not isinstance(architectures[0], str):
        hint = 'add the key, as in `"architectures": ["LlamaForCausalLM"]`'
        raise UserError(f"{checkpoint.path}: config.json names no architecture", hint=hint)
    family: ModelFamily = registry.load(registry.by_architecture(architectures[0]))()
    return family


def find_adapter(folder: Path, registry: Registry) -> Adapter:
    """The adapter that a PEFT folder describes, with the options it was trained with.

    Raises:
        UserError: it holds no adapter, a link leads out of it, or none of the installed plugins reads it; then
            each says why.
    """
    if not (folder / ADAPTER).is_file():
        hint = "give the folder that the adapter was saved to; a run leaves it in final/"
        raise UserError(Problem(f"{folder} is no adapter: it has no {ADAPTER}", hint))
    refuse_links_out(folder)
    config = read_json(folder / ADAPTER)
    readers = [entry for entry in registry.entries("adapter") if PEFT in entry.spec.supports]
    if not readers:
        plugin = hints.provider("adapter", str(config.get("peft_type", "")).lower())
        hint = f"pip install {plugin}" if plugin else "`ptsdk plugins` shows what is installed"
        raise UserError(f"no installed plugin reads the adapter {folder}", hint=hint)
    found: list[Adapter] = []
    refused: dict[Problem, None] = {}
    for entry in readers:
        _ask(registry.load(entry), config, found, refused)
    if not found:
        raise UserError(*refused)
    if len(found) > 1:
        names = ", ".join(sorted({type(adapter).__module__ for adapter in found}))
        raise UserError(f"several plugins read the adapter {folder}: {names}", hint="leave one out with --no-plugin")
    return found[0]


def _ask(reader: type[Adapter], config: Mapping[str, Any], found: list[Adapter], refused: dict[Problem, None]) -> None:
    """Note the adapter that ``reader`` makes of ``config``, once, or why it makes none."""
    try:
        adapter = reader.from_peft(config)
    except UserError as error:
        refused.update(dict.fromkeys(error.problems))
    else:
        if adapter not in found:
            found.append(adapter)
