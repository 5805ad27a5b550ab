"""What is kept for the backward, how much was used, and what helps where there is too little."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from ptsdk.errors import RunError
from ptsdk.job.job import Job
from ptsdk.nn.causal_lm import CausalLM

ATTENTION = {
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "ptsdk::documents_attention",
    "torch_attn::_varlen_attn",
    "flash_attn::_flash_attn_varlen_forward",
    "flex_attention",
}
"""The operations of any backend of attention, by name: a package that is not installed has registered none."""
PRODUCTS = {"aten::mm", "aten::addmm"}
MUCH_WAITS = 2**23
"""Bytes of the inputs of all blocks together, from which on the heap is looked through for holes."""


def checkpoint_activations(model: CausalLM, mode: str, every: int = 1) -> None:
    """Make blocks recompute their activations in the backward.

    Args:
        model: its blocks are changed in place; parameter names stay.
        mode: ``none``; ``full`` keeps a block's input alone; ``selective`` also what costs much to make for its size.
        every: of so many blocks, which the model has, the first recomputes.
    """
    if mode == "none":
        return
    for block in model.layers[::every]:
        block.forward = functools.partial(_recomputed, block, block.forward, mode == "selective")


def _recomputed(block: nn.Module, forward: object, selective: bool, *args: object) -> object:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args)  # type: ignore[operator]
    if not selective:
        return checkpoint(forward, *args, use_reentrant=False)
    contexts = functools.partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts)


def _policy(ctx: object, op: Any, *args: Any, **kwargs: object) -> CheckpointPolicy:
    dear = op.name() in ATTENTION or (op.name() in PRODUCTS and _narrows(*args[-2:]))
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE


def _narrows(left: Tensor, right: Tensor) -> bool:
    """Whether a product is no wider than what it is made of, so that each number of it costs much. That leaves out the
    widest activations, those inside of an MLP, which without checkpointing are half of all that waits."""
    return right.shape[-1] <= left.shape[-1]


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: allocated on an accelerator, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def memory_explained(job: Job) -> Iterator[None]:
    """Inside, running out of memory ends with what would help.

    Raises:
        RunError: instead of torch's error, or Python's.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        wanted = re.search(r"ried to allocate ([\d.]+ \w+)", str(error))
        what = f"out of memory{f' for another {wanted[1]}' if wanted else ''}"
        raise RunError("\n    ".join([what, *relief(job)])) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator's allocator, the CPU's or Python's found no more."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def relief(job: Job) -> list[str]:
    """What takes less memory, what changes no result first; one line each."""
    train, lines = job.train, []
    key = "micro_batch_tokens" if train.micro_batch_size is None else "micro_batch_size"
    if (size := getattr(train, key)) > 1:
        lines.append(f"lower train.{key}, now {size}: batch_size and the result stay")
    if train.activation_checkpointing != "full" or train.activation_checkpointing_every > 1:
        lines.append("set train.activation_checkpointing=full, of every block: the same numbers, computed twice")
    elif not train.activation_offloading and torch.cuda.is_available():
        lines.append("set train.activation_offloading=true: what blocks start from waits in the memory of the host")
    lines.append(f"shorten data.max_length, now {job.data.max_length}, or spread the run over more processes (--nproc)")
    if train.async_save is True:
        lines.append("set train.async_save=false: no copy of weights and optimizer while a checkpoint is written")
    if not job.adapter.keeps_base:
        lines.append("train an adapter instead of every weight (`ptsdk list adapter`)")
    lines.append("`ptsdk plan JOB` tells what a job takes: weights, gradients, optimizer, activations")
    return lines


def use_huge_pages() -> None:
    """Ask torch for pages of 2 MiB where a tensor on a CPU has that much: logits and gradients of a head are new memory
    at each step, and half a million pages of 4 KiB cost a loss about a tenth of its time. torch asks once, at its first
    allocation; who has set the variable is not overruled."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def give_back_holes(model: CausalLM) -> None:
    """On a CPU, give back what the temporaries of blocks left between tensors that wait for the backward, after each
    forward that has one: a loss rarely fits in there. LoRA on Gemma 3 270M with 512 tokens takes 50 MiB of 1920 less,
    for 20 ms of a step of 4 s. Where little waits nothing is done: to go through the heap would take as long as a step.
    """

    def after(module: nn.Module, args: tuple[Any, ...], hidden_states: Tensor) -> None:
        wanted = hidden_states.requires_grad and hidden_states.device.type == "cpu"
        if wanted and hidden_states.nbytes * len(model.layers) >= MUCH_WAITS:
            give_back_freed()

    model.register_forward_hook(after)


def give_back_freed() -> None:
    """Hand what Python and libraries have freed back to the system: the million small pieces of a vocabulary lie
    where glibc keeps them for more small pieces, and a tensor is none. Elsewhere than under glibc nothing is done."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
