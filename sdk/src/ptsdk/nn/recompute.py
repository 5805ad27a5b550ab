"""What is cheap to make again does not wait for the backward.

Much of what a network keeps is elementwise work on something else that waits anyway: what a norm gives to the
projections behind it, the product in a gated MLP. ``recomputed`` stands where such a tensor is made, ``not_kept``
where it is used; between forward and backward it is gone. That is activation checkpointing (arXiv:1604.06174) of
operations that cost next to nothing, so it is always on. The forward has the bits of the plain path; gradients may be
summed in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function(*inputs)``, of which the inputs alone wait for the backward.

    Args:
        function: the same each time: it draws no random number and changes nothing.
        inputs: every tensor of which it may have a gradient.
    """
    if torch.compiler.is_compiling():  # a compiler sees by itself what is cheap to make again
        return function(*inputs)
    result: Tensor = cast(Any, _Recomputed.apply)(function, *inputs)  # torch's has no types
    return result


def is_recomputed(tensor: Tensor) -> bool:
    """Whether it is a result of ``recomputed`` that has a gradient, not a view of one."""
    return not torch.compiler.is_compiling() and isinstance(getattr(tensor.grad_fn, "recipe", None), _Recipe)


def not_kept(*tensors: Tensor) -> AbstractContextManager[object]:
    """Inside, an operation that saves one of ``tensors`` for its backward saves how to make it again, where it
    ``is_recomputed``.

    Other tensors are saved as they would be outside, views of these among them: checkpointing sees them.
    """
    nodes = {_place(tensor): tensor.grad_fn for tensor in tensors if is_recomputed(tensor)}
    if not nodes:
        return nullcontext()
    # torch asks the innermost hooks alone, and tells which are there only here.
    outer = torch._C._autograd._top_saved_tensors_default_hooks(True) or (_Unchanged, _Unchanged.tensor)

    def pack(saved: Tensor) -> Callable[[], Tensor]:
        node = nodes.get(_place(saved))
        return partial(outer[1], outer[0](saved)) if node is None else partial(_result_of, node)

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed())


def _place(tensor: Tensor) -> tuple[object, ...]:
    """What two tensors that are the same numbers have in common, on any device."""
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


class _Unchanged:
    """A tensor that is saved as it is, and what autograd itself would see to: that nobody wrote into it since."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._version = tensor.detach(), tensor._version

    def tensor(self) -> Tensor:
        """Raises RuntimeError if somebody did."""
        if self._tensor._version != self._version:
            raise RuntimeError("a tensor that the backward needs has been modified by an inplace operation")
        return self._tensor


class _Recipe:
    """How a tensor is made of its ``inputs``; ``result`` has a graph once it is made again."""

    def __init__(self, function: Callable[..., Tensor], needs: Sequence[bool]) -> None:
        self.function, self.needs = function, needs
        self.inputs: list[Tensor] = []
        self.result: Tensor

    def make(self, inputs: Sequence[Tensor]) -> None:
        """Fill ``inputs`` and ``result``."""
        self.inputs = [one.detach().requires_grad_(needed) for one, needed in zip(inputs, self.needs, strict=True)]
        with torch.enable_grad():
            self.result = self.function(*self.inputs)


class _Recomputed(torch.autograd.Function):
    """What it gives is made again once, for all that did not keep it and for its own gradient."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.recipe = _Recipe(function, ctx.needs_input_grad[1:])
        return function(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        made = _made_again(ctx)
        ctx.recipe = _Recipe(made.function, made.needs)
        inputs, hand_over = made.inputs, cast(Any, _Handed.apply)
        with torch.enable_grad():
            number = hand_over(made.result, grad)
            del made  # its result is as large as any, and was used
            grads = iter(torch.autograd.grad(number, [one for one in inputs if one.requires_grad]))
        return None, *(next(grads) if one.requires_grad else None for one in inputs)


class _Handed(torch.autograd.Function):
    """A number whose gradient by ``tensor`` is ``grad``: torch imports sympy to look at one that it is handed."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, grad: Tensor) -> Tensor:
        ctx.grad = grad
        return tensor.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, one: Tensor) -> tuple[Tensor, None]:
        return ctx.grad, None


def _result_of(node: Any) -> Tensor:
    return _made_again(node).result.detach()


def _made_again(node: Any) -> _Recipe:
    """The recipe of a result of ``_Recomputed``, followed."""
    recipe: _Recipe = node.recipe
    if not recipe.inputs:
        recipe.make(node.saved_tensors)
    return recipe
