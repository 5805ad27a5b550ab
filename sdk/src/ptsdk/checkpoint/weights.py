"""Full tensors by parameter name, made or read one at a time: what a strategy loads from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ptsdk.contracts.adapter import Adapter
from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.contracts.model import ModelFamily
from ptsdk.contracts.quantizer import Packs
from ptsdk.errors import Problem, UserError
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.sharded import is_sharded

SHOWN = 5
"""Misfits that are named."""


class LazyTensors(Mapping[str, Tensor]):
    """A mapping that makes each tensor when it is asked for."""

    def __init__(self, names: list[str], read: Callable[[str], Tensor]) -> None:
        self._names, self._read = names, read

    def __getitem__(self, name: str) -> Tensor:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def build_on_meta(family: ModelFamily, config: dict[str, Any], dtype: torch.dtype) -> CausalLM:
    """The module without storage, every parameter in ``dtype``."""
    with torch.device("meta"), _Undrawn():
        model = family.build(config)
    return model.to(dtype) if any(p.dtype != dtype for p in _floating(model)) else model


def _floating(model: nn.Module) -> Iterator[Tensor]:
    """What ``Module.to`` would cast. To ask is a tenth of what ``to`` costs where nothing is to be done."""
    return (tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point())


class _Undrawn(TorchFunctionMode):
    """Leaves ``torch.nn.init`` out: what has no storage keeps no numbers, and to draw them there torch
    imports its compiler, two seconds of a start."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def resolve_dtype(wish: str, device: torch.device) -> torch.dtype:
    """``auto``: bfloat16 where the accelerator computes in it, float32 on a CPU."""
    if wish == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wish]


def adapter_names(adapter: Adapter, model: CausalLM) -> list[str]:
    """The parameters that the adapter added."""
    return [name for name, _ in model.named_parameters() if adapter.own(name)]


def base_tensors(
    model: CausalLM, names: list[str], checkpoint: Checkpoint | None, seed: int, place: str = ""
) -> LazyTensors:
    """The parameters ``names``: from the checkpoint, or made from the seed.

    Args:
        place: the key of the job that names the checkpoint, for the error.

    Raises:
        UserError: the checkpoint does not hold just these.
    """
    if checkpoint is None:
        return initial_tensors(model, names, seed)
    check_names(model, names, checkpoint, place)
    return LazyTensors(names, checkpoint.tensor)


def check_names(model: CausalLM, names: list[str], checkpoint: Checkpoint, place: str = "") -> None:
    """Every parameter must be in the checkpoint, in its shape, and nothing else.

    Raises:
        UserError: what is missing, unexpected or of another shape; at the key ``place`` of a job.
    """
    there, tied = {name for name in checkpoint.names() if not model.ignores(name)}, model.tied()
    modules = _modules(model)
    problems = [f"{name} is missing" for name in sorted(names) if name not in there]
    problems += [f"{name} is not part of the model" for name in sorted(there - {*names, *tied})]
    for name in sorted(there.intersection(names)):
        expected, found = tuple(_stored_shape(*_owner(modules, name))), checkpoint.shape(name)
        if expected != found:
            problems.append(f"{name} is {list(found)}, config.json makes it {list(expected)}")
    if problems:
        more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
        message = f"{checkpoint.path} does not fit its config.json: {'; '.join(problems[:SHOWN])}{more}"
        raise UserError(Problem(message, "is the checkpoint complete, and of this architecture?", path=place))


def fill(
    model: nn.Module, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, *, mapped: bool = False
) -> None:
    """Give each parameter its tensor: its first storage, in ``dtype`` on ``device``, or the values
    into the storage it has.

    Args:
        mapped: keep the memory of a mapped file. Otherwise what trains gets memory of its own: two
            readings of a file are the same memory, and the reference may hold the other one.
    """
    modules = _modules(model)
    for name in tensors:
        module, leaf = _owner(modules, name)
        parameter: Tensor = getattr(module, leaf)
        if parameter.is_meta:
            own = parameter.requires_grad and not mapped
            _replace(module, leaf, tensors[name].to(device=device, dtype=dtype, copy=own))
        else:
            parameter.data.copy_(tensors[name])


def replace_parameter(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Give the parameter ``name`` this storage, packed where its module packs, keeping whether it
    trains."""
    _replace(*_found(model, name), tensor)


def _replace(module: nn.Module, leaf: str, tensor: Tensor) -> None:
    trains = getattr(module, leaf).requires_grad
    packed = module.pack(leaf, tensor) if _packs(module) else nn.Parameter(tensor, requires_grad=trains)
    setattr(module, leaf, packed)


def held(model: nn.Module, name: str, tensor: Tensor, device: torch.device) -> Tensor:
    """What the parameter ``name`` holds of a checkpoint's whole ``tensor``: packed, on ``device``,
    where its module packs, else the tensor itself."""
    module, leaf = _found(model, name)
    return module.pack(leaf, tensor.to(device)).detach() if _packs(module) else tensor


def stored_shape(model: nn.Module, name: str) -> torch.Size:
    """The shape that checkpoints give the parameter ``name``."""
    return _stored_shape(*_found(model, name))


def _stored_shape(module: nn.Module, leaf: str) -> torch.Size:
    return module.unpacked_shape(leaf) if _packs(module) else getattr(module, leaf).shape


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict as checkpoints hold it: packed weights unpacked, detached, all else shared."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        module, leaf = _found(model, name)
        tensors[name] = unpacked(module, leaf) if isinstance(module, Packs) else tensor.detach()
    return tensors


def unpacked(module: nn.Module, leaf: str) -> Tensor:
    """A parameter as a checkpoint would hold it, detached; one in shards in the same shards.

    Row i of what is packed holds row i of the weight, so each process unpacks its own rows: packed bits
    are read as other types, which no operation on a ``DTensor`` does for the local bits.
    """
    parameter: Tensor = getattr(module, leaf)
    if not _packs(module):
        return parameter.detach()
    if not is_sharded(parameter):
        return module.unpacked(leaf)
    from torch.distributed.tensor import DTensor

    rows = nn.Parameter(parameter.to_local(), requires_grad=False)
    setattr(module, leaf, rows)
    try:
        local = module.unpacked(leaf)
    finally:
        setattr(module, leaf, parameter)
    shape = module.unpacked_shape(leaf)
    stride = torch.empty(shape, device="meta").stride()
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)


def _found(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter or buffer, and its name there."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module under each of its paths: for many names, where ``get_submodule`` walks down for each."""
    return dict(model.named_modules(remove_duplicate=False))


def _owner(modules: Mapping[str, nn.Module], name: str) -> tuple[nn.Module, str]:
    """As ``_found``, of the model's ``_modules``."""
    path, _, leaf = name.rpartition(".")
    return modules[path], leaf


def _packs(module: nn.Module) -> TypeGuard[Packs]:
    """Whether it is a ``Packs``. To ask a protocol takes 30 us, a first look saves it for most."""
    return hasattr(module, "pack") and isinstance(module, Packs)


def initial_tensors(model: CausalLM, names: list[str], seed: int) -> LazyTensors:
    """A model from scratch: each weight is a function of the seed and its name alone."""

    def make(name: str) -> Tensor:
        weight = torch.empty(stored_shape(model, name))
        model.init_weight(name, weight, seeded(seed, name))
        return weight

    return LazyTensors(names, make)


def seeded(seed: int, name: str) -> torch.Generator:
    """A generator of its own for each (seed, name)."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
