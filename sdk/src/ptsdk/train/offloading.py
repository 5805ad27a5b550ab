"""Activation offloading: what a recomputed block starts from waits for the backward in the memory of the host."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from ptsdk.nn.causal_lm import CausalLM


def host_memory() -> saved_tensors_hooks:
    """Pinned memory: copies are queued between the work of a GPU, and the host does not wait for them."""
    return save_on_cpu(pin_memory=True)


def offload_inputs(model: CausalLM, every: int, host: saved_tensors_hooks) -> None:
    """Send the inputs of blocks to ``host`` when they are saved for the backward, and fetch them there.

    What else is saved stays where it is: weights are there anyway, what a loss has made is wanted at once, and what
    selective checkpointing keeps it keeps by itself. Called last, when blocks recompute and are compiled: what
    they save inside, checkpointing takes before it would come here.

    Args:
        model: its blocks are changed in place; those below the first that trains have no backward, and send nothing.
        every: of so many blocks the first recomputes, and sends its input.
        host: puts a tensor away and gets it back: a pair of hooks as torch has them.
    """
    backward = False
    for number, block in enumerate(model.layers):
        backward = backward or any(parameter.requires_grad for parameter in block.parameters())
        if number % every == 0:
            _send_input(block, host, backward)


def _send_input(block: nn.Module, host: saved_tensors_hooks, backward: bool) -> None:
    forward = block.forward

    @functools.wraps(forward)  # with its attributes: who looks whether a block is compiled still sees it
    def sending(hidden_states: Tensor, *args: object) -> Tensor:
        if not (backward or hidden_states.requires_grad):
            unsent: Tensor = forward(hidden_states, *args)
            return unsent
        with _Sent(hidden_states, host):
            output: Tensor = forward(hidden_states, *args)
        return output

    block.forward = sending


class _Sent(saved_tensors_hooks):
    """Inside, one tensor is saved in ``host``, whatever view of its storage is meant; others as they are."""

    def __init__(self, tensor: Tensor, host: saved_tensors_hooks) -> None:
        storage = tensor.untyped_storage()._cdata

        def pack(saved: Tensor) -> tuple[bool, Any]:
            sent = saved.untyped_storage()._cdata == storage
            return sent, host.pack_hook(saved) if sent else saved

        def unpack(packed: tuple[bool, Any]) -> Tensor:
            sent, kept = packed
            fetched: Tensor = host.unpack_hook(kept) if sent else kept
            return fetched

        super().__init__(pack, unpack)
