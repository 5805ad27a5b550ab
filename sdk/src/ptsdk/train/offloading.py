"""Activation offloading: what a recomputed block starts from waits for the backward in the memory of the host."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from ptsdk.nn.causal_lm import CausalLM


def host_memory() -> saved_tensors_hooks:
    """Pinned memory, to and from which a GPU copies while it computes."""
    return save_on_cpu(pin_memory=True)


def offload_inputs(model: CausalLM, every: int, host: saved_tensors_hooks) -> None:
    """Send the inputs of blocks to ``host`` when they are saved for the backward, and fetch them there.

    What else is saved (weights, what selective checkpointing keeps, the gradients a loss has made already) stays where
    it is: it is there anyway, or wanted at once.

    Args:
        model: its blocks are changed in place, which recompute and may be compiled.
        every: of so many blocks the first recomputes.
        host: how a tensor is put away and got back.
    """
    for block in model.layers[::every]:
        block.forward = _offloading(block.forward, host)


def _offloading(forward: Any, host: saved_tensors_hooks) -> Any:
    @functools.wraps(forward)  # with its attributes: who looks whether a block is compiled still sees it
    def offloading(hidden_states: Tensor, *args: object) -> Tensor:
        with _Waiting(hidden_states, host):
            output: Tensor = forward(hidden_states, *args)
        return output

    return offloading


class _Waiting(saved_tensors_hooks):
    """Inside, one tensor is saved in ``host``, whatever view of it is meant."""

    def __init__(self, waiting: Tensor, host: saved_tensors_hooks) -> None:
        storage = waiting.untyped_storage()._cdata

        def pack(tensor: Tensor) -> Any:
            return host.pack_hook(tensor) if tensor.untyped_storage()._cdata == storage else tensor

        def unpack(packed: Any) -> Tensor:
            fetched: Tensor = packed if isinstance(packed, Tensor) else host.unpack_hook(packed)
            return fetched

        super().__init__(pack, unpack)
