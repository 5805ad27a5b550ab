"""A linear layer with a low-rank update beside its frozen weight.

A layer is adapted in place: its class becomes one that derives from this module's and from the
class it had, so ``weight`` and ``bias`` keep their names, checkpoints load as before, and
``super().forward`` is the base's own, quantised or not. The new parameters get PEFT's names.

Shapes: x [..., in], W [out, in], A [r, in], B [out, r], magnitude [out].
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from ptsdk.checkpoint.weights import unpacked
from ptsdk.nn.sharded import is_sharded


class LowRankLinear(nn.Linear):
    """``y = W x + bias + scaling * B A dropout(x)``, and its DoRA form. Made by ``adapt``.

    Attributes:
        adapted: False while the adapter is switched off.
        scaling: what the update is multiplied by.
        dropout: probability that an input of the update is dropped in training.

    The adapter's parameters are float32 whatever the base is, for small steps to count, and are
    cast to the input's dtype to compute. ``scaling`` multiplies the [..., r] side of the update.
    The base needs no gradient, so torch keeps x once, for A, and never makes a [out, in] gradient.
    """

    lora_A: nn.Linear
    lora_B: nn.Linear
    lora_magnitude_vector: nn.Parameter | None
    adapted: bool
    scaling: float
    dropout: float

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the dtype of x."""
        base = super().forward(x)
        if not self.adapted:
            return base
        dropped = dropout(x, self.dropout, self.training)
        inner = linear(dropped, self.lora_A.weight.to(x.dtype)) * self.scaling
        outer = self.lora_B.weight.to(x.dtype)
        if self.lora_magnitude_vector is None:
            return torch.addmm(base.flatten(0, -2), inner.flatten(0, -2), outer.T).view_as(base)
        # The norm is detached (section 4.3 of the paper), and dropout reaches W too, as in PEFT.
        scale = self.lora_magnitude_vector / self.weight_norm()
        frozen = base if dropped is x else super().forward(dropped)
        if self.bias is not None:
            frozen = frozen - self.bias
        return (base - frozen + scale * (frozen + linear(inner, outer))).to(base.dtype)

    @torch.no_grad()
    def weight_norm(self) -> Tensor:
        """The 2-norm of each row of ``W + scaling * B A``: [out], at least float32, detached.

        By ``|w + s u|^2 = |w|^2 + 2 s w.u + s^2 |u|^2`` with u = B A, so that no second [out, in]
        is made.
        """
        weight, a, b = dense_weight(self), self.lora_A.weight, self.lora_B.weight
        square = squared_rows(weight, a.dtype)
        cross = (linear(weight, a.to(weight.dtype)) * b).sum(1)
        own = (b @ (a @ a.T) * b).sum(1)
        total: Tensor = square + 2 * self.scaling * cross + self.scaling**2 * own
        return total.clamp(min=0).sqrt()

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """``W + scaling * B A``, for DoRA with rows of the learned length: [out, in], a new tensor
        in the dtype of W, computed in at least float32."""
        weight = dense_weight(self)
        merged = weight.to(self.lora_A.weight.dtype) + self.scaling * (self.lora_B.weight @ self.lora_A.weight)
        if self.lora_magnitude_vector is not None:
            norm = torch.linalg.vector_norm(merged, dim=1)
            merged *= (self.lora_magnitude_vector / norm)[:, None]
        return merged.to(weight.dtype)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Start at the base: A uniform as PEFT draws it, B zero, the magnitude that of W."""
        a = torch.empty(self.lora_A.weight.shape, dtype=self.lora_A.weight.dtype)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        _fill(self.lora_A, "weight", a, self.weight.device)
        _fill(self.lora_B, "weight", torch.zeros(self.lora_B.weight.shape, dtype=a.dtype), self.weight.device)
        if self.lora_magnitude_vector is not None:
            # ``weight_norm`` while B is zero, to the bit, of rows alone: no process needs those of another.
            norm = squared_rows(dense_weight(self), a.dtype).sqrt()
            _fill(self, "lora_magnitude_vector", norm, self.weight.device)


def adapt(module: nn.Linear, *, rank: int, scaling: float, dropout: float, magnitude: bool) -> LowRankLinear:
    """Turn ``module`` itself into a ``LowRankLinear`` on its device (often meta), and return it.

    Args:
        module: any ``nn.Linear``, subclasses included. One whose ``weight`` is not a dense float
            matrix is a ``Packs``; DoRA and merging need that, LoRA does not.
        magnitude: whether to add DoRA's.
    """
    out_features, in_features, device = module.out_features, module.in_features, module.weight.device
    dtype = torch.promote_types(module.weight.dtype, torch.float32)
    module.__class__ = _low_rank_class(type(module))  # type: ignore[arg-type]  # classes are hashable
    assert isinstance(module, LowRankLinear)
    module.adapted, module.scaling, module.dropout = True, scaling, dropout
    module.lora_A = _undrawn(in_features, rank, dtype, device)
    module.lora_B = _undrawn(rank, out_features, dtype, device)
    vector = nn.Parameter(torch.empty(out_features, dtype=dtype, device=device)) if magnitude else None
    module.register_parameter("lora_magnitude_vector", vector)
    return module


def _undrawn(in_features: int, out_features: int, dtype: torch.dtype, device: torch.device) -> nn.Linear:
    """A layer without bias whose weight is still anything: no random number is spent on it."""
    layer = nn.Linear(in_features, out_features, bias=False, device="meta")
    layer.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype, device=device))
    return layer


def squared_rows(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The squared 2-norm of each row of W [out, in], computed in ``dtype``: [out]."""
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1, dtype=dtype)
    return norms.square()


def dense_weight(module: nn.Linear) -> Tensor:
    """W [out, in] of a linear layer, detached; unpacked where it is quantised, in shards where it is sharded.

    Raises:
        TypeError: the weight is packed, and the module does not say how to unpack it.
    """
    weight = unpacked(module, "weight")
    if not weight.is_floating_point() or weight.shape != (module.out_features, module.in_features):
        name = type(module).__name__
        raise TypeError(f"{name}: the weight is {weight.dtype} {tuple(weight.shape)}; the module has to be a Packs")
    return weight


@functools.cache
def _low_rank_class(base: type[nn.Linear]) -> type[LowRankLinear]:
    """One class for each class of base, so that equal layers stay of equal type."""
    return type(f"LowRank{base.__name__}", (LowRankLinear, base), {})


def _fill(owner: nn.Module, leaf: str, value: Tensor, device: torch.device) -> None:
    """Give a parameter its first value, and storage if it has none yet; sharded as it is."""
    parameter = owner.get_parameter(leaf)
    if is_sharded(parameter) and not is_sharded(value):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(device), parameter.device_mesh, parameter.placements)
    if parameter.is_meta:
        setattr(owner, leaf, nn.Parameter(value.to(device)))
    else:
        parameter.copy_(value)
