"""A model folder that transformers loads as is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ptsdk.checkpoint.files import atomic_folder, write_json
from ptsdk.checkpoint.tensors import MAX_SHARD_BYTES, save_sharded
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.errors import RunError

OF_THE_SOURCE = ("torch_dtype", "quantization_config", "transformers_version", "_name_or_path")
"""Keys of config.json that speak of the checkpoint a run started from, not of what is written."""


def export_model(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    tokenizer: Tokenizer | None,
    generation_config: Mapping[str, Any] | None = None,
    *,
    stored: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write ``folder`` (replacing one that is there), complete or not at all.

    Args:
        folder: gets config.json, model.safetensors (or shards of at most ``max_shard_bytes`` and
            their index), the tokenizer's files, and generation_config.json where it has keys.
        tensors: plain weights under their Hugging Face names; of names that share a storage the
            first is written, and the model ties the others.
        config: the keys of config.json, ``architectures`` and ``model_type`` among them.
        tokenizer: None where the model has none.
        generation_config: defaults for generation.
        stored: keys of config.json that tell how the tensors hold the weights, where these are not plain
            (``quantization_config``); ``dtype`` is then not that of most of them, and has to be among the keys.
        metadata: of the safetensors files.

    Raises:
        RunError: ``config`` does not say which model it is of, or there are no weights.
        WriteError: the disk is full, or similar.
    """
    lacking = [key for key in ("architectures", "model_type") if not config.get(key)]
    if lacking or not tensors:
        raise RunError(f"cannot export to {folder}: " + (f"config lacks {lacking[0]}" if lacking else "no weights"))
    with atomic_folder(folder, replace=True) as partial:
        write_json(partial / "config.json", {**served_config(config, tensors), **(stored or {})})
        save_sharded(tensors, partial, max_shard_bytes, metadata or {})
        if generation_config:
            write_json(partial / "generation_config.json", dict(generation_config))
        if tokenizer is not None:
            tokenizer.save(partial)
    return folder


def served_config(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """``config`` with the dtype that most weights have, without what was true of the source alone."""
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    kept = {key: value for key, value in config.items() if key not in OF_THE_SOURCE}
    return {**kept, "dtype": sizes.most_common(1)[0][0]}
