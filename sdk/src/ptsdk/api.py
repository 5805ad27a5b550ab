"""The library face: what ``import ptsdk`` offers, made of the same parts as the commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from ptsdk.checkpoint.sources import open_checkpoint
from ptsdk.checkpoint.weights import resolve_dtype
from ptsdk.contracts.model import Dtype
from ptsdk.errors import UserError
from ptsdk.generate.loading import CPU, load_weights
from ptsdk.job import load_job
from ptsdk.nn.batch import IGNORE, Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from ptsdk.train.result import RunResult

__all__ = ["RunResult", "load_model", "logits", "run"]


def load_model(ref: str | Path, dtype: Dtype = "float32", adapter: str | Path | None = None) -> CausalLM:
    """The model of a checkpoint, on the CPU, in eval mode; its family is found from config.json.

    Args:
        ref: a folder, a file or a URL such as ``hf://org/name``.
        dtype: ``float32``, ``bfloat16`` or ``auto``.
        adapter: a folder in PEFT's format, applied on top.

    Raises:
        UserError: another dtype, no such checkpoint or adapter, or nothing installed reads it.
    """
    if dtype not in get_args(Dtype):
        raise UserError(f"dtype is {dtype!r}", hint=f"it must be one of {', '.join(get_args(Dtype))}")
    registry = Registry(scan())
    folder = None if adapter is None else Path(adapter).expanduser()
    checkpoint = open_checkpoint(str(ref), Path(), registry)
    return load_weights(checkpoint, registry, resolve_dtype(dtype, CPU), folder)


def logits(model: CausalLM, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """The logits of right-padded rows, each a document of its own.

    The caller decides about gradients (``torch.no_grad``) and dropout (``model.eval``).

    Args:
        model: from ``load_model``.
        input_ids: int64 [B, T].
        attention_mask: [B, T], 1 (or True) for tokens and 0 for the padding after them; by default
            there is none.

    Returns:
        [B, T, V] on the model's device, float32 (float64 from a float64 model); 0 at the padding.

    Raises:
        UserError: the shapes differ, a row is padded elsewhere than at its end, or a token is not
            in the vocabulary.
    """
    keep = _mask(input_ids, attention_mask)
    tokens = input_ids[keep]
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < model.vocab_size:
        raise UserError(f"input_ids has ids outside the model's vocabulary of {model.vocab_size}")
    device = next(model.parameters()).device
    positions = torch.arange(keep.shape[1], device=keep.device).expand_as(keep)[keep]
    seq_lens = tuple(length for length in keep.sum(1).tolist() if length)
    batch = Batch(tokens, positions, torch.full_like(tokens, IGNORE), seq_lens).to(device)
    rows = model.head().logits(model(batch)) if seq_lens else torch.empty(0, model.vocab_size, device=device)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    out = rows.new_zeros(*keep.shape, rows.shape[-1])
    return out.masked_scatter(keep.to(device)[:, :, None], rows)


def _mask(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Bool [B, T], checked."""
    if input_ids.ndim != 2 or input_ids.dtype not in (torch.int64, torch.int32):
        found = f"{str(input_ids.dtype).removeprefix('torch.')} {list(input_ids.shape)}"
        raise UserError(f"input_ids is {found}, it must be int64 [B, T]")
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    if attention_mask.shape != input_ids.shape:
        raise UserError(f"attention_mask is {list(attention_mask.shape)}, input_ids is {list(input_ids.shape)}")
    keep = attention_mask.to(device=input_ids.device, dtype=torch.bool)
    if (keep[:, 1:] & ~keep[:, :-1]).any():
        raise UserError("attention_mask has tokens after padding", hint="rows must be padded on the right")
    return keep


def run(job: str | Path, overrides: Sequence[str] = (), *, resume: bool = False, overwrite: bool = False) -> RunResult:
    """Train what a job file says, as ``ptsdk run`` does.

    Args:
        job: the YAML file.
        overrides: ``key.path=value`` or ``~key.path``, applied in order.
        resume: continue from the newest intact checkpoint.
        overwrite: discard what an earlier run left in the output directory.

    Raises:
        UserError: the job, its data or its output directory is wrong.
        RunError: training failed.
    """
    registry = Registry(scan())
    loaded = load_job(Path(job), overrides, registry)
    with loaded.placing():
        return run_job(loaded, registry, resume=resume, overwrite=overwrite)
