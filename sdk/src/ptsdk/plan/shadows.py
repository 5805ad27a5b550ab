"""Tensors without data: a step runs through the real code, and nothing is computed or stored.

Floating-point tensors are fake (``torch._subclasses.FakeTensor``): shapes, dtypes and lifetimes, no
storage. Integers that say where things are (tokens, positions, labels, lengths) stay real, so that
what depends on their values, such as how many rows carry loss, is as in a run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from ptsdk.plan.meter import Meter

REAL = (torch.int64, torch.int32, torch.bool)
"""What is computed for real where it is made of nothing fake; other integers are packed weights."""


class Shadows(Meter):  # type: ignore[no-untyped-call]
    """A meter inside of which nothing has data.

    A number that is read off a fake tensor is 1: a loss is finite, a norm is not 0, a token is known.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._left_nothing: set[tuple[Any, ...]] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, so no operation has to guard against it: a third of its time."""
        return False

    def compiled(self, function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
        """See ``Meter.compiled``. One that returned nothing and left nothing is not run on like arguments again."""
        if function is None:
            return functools.partial(self.compiled, **options)
        unseen = super().compiled(function)

        def run(*args: Any, **kwargs: Any) -> Any:
            key = (function, *(_kind(leaf) for leaf in tree_leaves((args, kwargs))))
            if key in self._left_nothing:
                return None
            before = self.live
            result = unseen(*args, **kwargs)
            if result is None and self.live == before:
                self._left_nothing.add(key)
            return result

        return run

    def execute(self, func: Any, tensors: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See ``Meter.execute``."""
        if func is torch.ops.prim.device.default and isinstance(tensors[0], FakeTensor):
            return tensors[0].fake_device
        if any(isinstance(tensor, FakeTensor) or tensor.is_meta for tensor in tensors):
            if func is torch.ops.aten._local_scalar_dense.default:
                return one_of(tensors[0].dtype)
            return self._faked(func, args, kwargs)
        if tensors:
            return func(*args, **kwargs)
        made = self._faked(func, args, kwargs)
        is_real = isinstance(made, Tensor) and made.dtype in REAL and made.device.type == "cpu"
        return func(*args, **kwargs) if is_real else made

    def has_storage(self, tensor: Tensor) -> bool:
        """A fake tensor would have it."""
        return isinstance(tensor, FakeTensor) or super().has_storage(tensor)

    def _faked(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._fake:
            return func(*args, **kwargs)


def _kind(argument: Any) -> Any:
    """What decides which tensors a function makes of an argument."""
    if isinstance(argument, Tensor):
        return type(argument), argument.shape, argument.dtype
    return argument if isinstance(argument, (bool, int, float, str)) else type(argument)


def one_of(dtype: torch.dtype) -> bool | int | float:
    """1 as ``Tensor.item`` gives it."""
    if dtype == torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1
