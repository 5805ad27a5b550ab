"""Tensor subclasses taken apart into plain tensors and put together again, as torch.compile does it.

Any class with ``__tensor_flatten__`` and ``__tensor_unflatten__`` will do: low-bit optimizer state,
quantised weights. Nothing is pickled; a class is found among what is imported already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ptsdk.errors import UserError


@dataclass(frozen=True)
class Parts:
    """A tensor subclass in pieces.

    Attributes:
        kind: ``module:Class``.
        inner: its tensors by attribute; each may be a subclass again.
        context: what else the class asked to be kept.
        size, stride: of the tensor as a whole.
    """

    kind: str
    inner: dict[str, Tensor]
    context: Any
    size: tuple[int, ...]
    stride: tuple[int, ...]


def parts_of(tensor: Tensor) -> Parts | None:
    """The pieces of a tensor subclass; None for a plain tensor, or a class that cannot be taken apart."""
    if type(tensor) in (Tensor, nn.Parameter) or not hasattr(tensor, "__tensor_flatten__"):
        return None
    names, context = tensor.__tensor_flatten__()
    kind = f"{type(tensor).__module__}:{type(tensor).__qualname__}"
    return Parts(kind, {name: getattr(tensor, name) for name in names}, context, tuple(tensor.shape), tensor.stride())


def rebuild(parts: Parts) -> Tensor:
    """The inverse of ``parts_of``.

    Raises:
        UserError: the class is of a package that this job does not use.
    """
    module, _, name = parts.kind.partition(":")
    kind = getattr(sys.modules.get(module), name, None)  # importing what a file names would run it
    if not (isinstance(kind, type) and issubclass(kind, Tensor) and hasattr(kind, "__tensor_unflatten__")):
        raise UserError(
            f"the checkpoint holds a {parts.kind}, which nothing in this job defines",
            hint="resume with the job that wrote it, and the versions that its lock.json names",
        )
    tensor: Tensor = kind.__tensor_unflatten__(parts.inner, parts.context, parts.size, parts.stride)
    return tensor


def map_parts(function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """``function`` of a plain tensor, or of each plain tensor that a subclass is made of."""
    parts = parts_of(tensor)
    if parts is None:
        return function(tensor)
    inner = {name: map_parts(function, part) for name, part in parts.inner.items()}
    return rebuild(Parts(parts.kind, inner, parts.context, parts.size, parts.stride))


def plain(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that a subclass is made of (shards, codes and scales), or the tensor itself."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        if isinstance(part := getattr(tensor, name), Tensor):
            yield from plain(part)
