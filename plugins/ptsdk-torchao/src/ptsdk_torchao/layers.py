"""A linear layer whose frozen weight is packed, and unpacked only while it is multiplied with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from ptsdk_torchao.schemes import Scheme


class PackedLinear(nn.Linear):
    """``y = W x + bias`` with W in fewer bits.

    Attributes:
        weight: uint8 [out, row_bytes], from the meta device on; frozen.
        scheme: how to read it.
        dense_dtype: the dtype W had, and has when it is unpacked.
    """

    scheme: Scheme
    dense_dtype: torch.dtype

    @classmethod
    def of(cls, base: nn.Linear, scheme: Scheme) -> PackedLinear:
        """The packed form of a layer that has no storage yet, on its device (meta)."""
        with torch.device("meta"):
            layer = cls(base.in_features, base.out_features, base.bias is not None, dtype=base.weight.dtype)
        layer.scheme, layer.dense_dtype = scheme, base.weight.dtype
        row_bytes = scheme.row_bytes(base.in_features, base.weight.dtype)
        packed = torch.empty(base.out_features, row_bytes, dtype=torch.uint8, device=base.weight.device)
        layer.weight = nn.Parameter(packed, requires_grad=False)
        return layer

    def pack(self, leaf: str, tensor: Tensor) -> nn.Parameter:
        """See ``Packs.pack``: the weight is packed, a bias is kept."""
        held = self.scheme.pack(tensor.to(self.dense_dtype)) if leaf == "weight" else tensor
        return nn.Parameter(held, requires_grad=False)

    def unpacked(self, leaf: str) -> Tensor:
        """See ``Packs.unpacked``."""
        if leaf != "weight":
            return self.get_parameter(leaf).detach()
        return self.scheme.unpack(self.weight.detach(), self.in_features, self.dense_dtype)

    def unpacked_shape(self, leaf: str) -> torch.Size:
        """See ``Packs.unpacked_shape``."""
        if leaf != "weight":
            return self.get_parameter(leaf).shape
        return torch.Size((self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the dtype of x."""
        y: Tensor = PackedMatmul.apply(x, self.weight, self.scheme, self.in_features, self.dense_dtype)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias


class PackedMatmul(torch.autograd.Function):
    """``x W^T`` and its gradient by x alone; between the two only the packed weight is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, scheme: Scheme, in_features: int, dtype: torch.dtype) -> Tensor:
        """x [..., in] -> [..., out]."""
        ctx.save_for_backward(packed)
        ctx.unpack = (scheme, in_features, dtype)
        return linear(x, scheme.unpack(packed, in_features, dtype).to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        """grad [..., out] -> [..., in]."""
        (packed,) = ctx.saved_tensors
        scheme, in_features, dtype = ctx.unpack
        return grad @ scheme.unpack(packed, in_features, dtype).to(grad.dtype), None, None, None, None
