"""Between full tensors and the rows of them that one process holds.

A tensor of n rows over p processes: process r holds rows ``[r c, (r + 1) c)`` with ``c = ceil(n / p)``,
as ``torch.chunk`` cuts; the last processes may hold fewer, or none.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard

from ptsdk.checkpoint.weights import held
from ptsdk.nn.causal_lm import CausalLM


def rows_of(full: Tensor, rank: int, size: int) -> Tensor:
    """The rows of ``full`` [n, ...] that process ``rank`` of ``size`` holds: a view."""
    each = -(-full.shape[0] // size)
    start = min(rank * each, full.shape[0])
    return full[start : min(start + each, full.shape[0])]


def sharded(model: CausalLM, name: str) -> DTensor:
    """The parameter ``name``, in shards.

    Raises:
        TypeError: it is not: it was added after ``wrap``, or is unsharded just now.
    """
    parameter = model.get_parameter(name)
    if not isinstance(parameter, DTensor):
        raise TypeError(f"{name} is a {type(parameter).__name__}, not sharded")
    return parameter


def place(model: CausalLM, name: str, full: Tensor, device: torch.device, dtype: torch.dtype) -> None:
    """Give the parameter ``name`` its rows of ``full``: its first storage, or the values into what
    it has. Where its module packs, rows of the packed whole: the same bits at any world size."""
    parameter = sharded(model, name)
    mesh = parameter.device_mesh
    rows = rows_of(held(model, name, full, device), mesh.get_local_rank(), mesh.size())
    if not parameter.to_local().is_meta:
        with torch.no_grad():
            parameter.to_local().copy_(rows)
        return
    # A copy: rows of a memory-mapped file would keep the whole tensor alive.
    whole = DTensor.from_local(
        rows.to(device=device, dtype=dtype if rows.is_floating_point() else rows.dtype, copy=True),
        mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    module, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(module), leaf, nn.Parameter(whole, requires_grad=parameter.requires_grad))


def full(value: Any) -> Any:
    """A tensor as a checkpoint holds it, whole and on the CPU; a number as it is. All processes call,
    the main one gets the result, the others None."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if dist.get_rank() != 0:
        return None
    return value.detach().cpu() if isinstance(value, Tensor) else value


def beside(value: Any, parameter: DTensor) -> Any:
    """The inverse of ``full``: state of the parameter's shape in its shards, a matrix of another
    shape (a factored moment) whole on every process, and scalars as they are."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    mesh = parameter.device_mesh
    device = parameter.to_local().device
    if value.shape != parameter.shape:
        return DTensor.from_local(value.to(device), mesh, (Replicate(),), run_check=False)
    rows = rows_of(value, mesh.get_local_rank(), mesh.size()).to(device, copy=True)
    return DTensor.from_local(rows, mesh, (Shard(0),), run_check=False, shape=value.shape, stride=value.stride())
