"""Quantizers: 8 bits, a scale a row, but."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ptsdk.contracts.quantizer import Quantizer
from ptsdk.nn.causal_lm import CausalLM, block_linears


class Packed(nn.Linear):
    """Codes and a float32 scale in each row: uint8 [out, in + 4]."""

    @classmethod
    def of(cls, base: nn.Linear) -> Any:
        with torch.device("meta"):
            layer = cls(base.in_features, base.out_features, bias=False)
        empty = torch.empty(base.out_features, base.in_features + 4, dtype=torch.uint8, device="meta")
        layer.weight = nn.Parameter(empty, requires_grad=False)
        return layer

    def pack(self, leaf: str, tensor: Tensor) -> nn.Parameter:
        scales = (tensor.abs().amax(1, keepdim=True) / 127).float()
        codes = (tensor / scales).round().to(torch.int8).view(torch.uint8)
        return nn.Parameter(torch.cat([codes, scales.view(torch.uint8)], 1), requires_grad=False)

    def dense(self) -> Tensor:
        packed = self.weight.detach()
        codes, scales = packed[:, :-4].view(torch.int8), packed[:, -4:].clone().view(torch.float32)
        return codes.float() * scales

    def unpacked(self, leaf: str) -> Tensor:
        return self.dense()

    def unpacked_shape(self, leaf: str) -> torch.Size:
        return torch.Size((self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.dense())


class Base(Quantizer):
    """Swaps each linear layer for one of ``layer``."""

    def layer(self, base: nn.Linear) -> nn.Module:
        layer: nn.Module = Packed.of(base)
        return layer

    def prepare(self, model: CausalLM) -> None:
        for name, layer in block_linears(model).items():
            model.set_submodule(name, self.layer(layer))


class Lookalike(nn.Module):
    """A layer that no adapter knows."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.weight = base.weight

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.bfloat16().to(x.dtype))


class NotLinear(Base):
    def layer(self, base: nn.Linear) -> nn.Module:
        return Lookalike(base)

    @torch.no_grad()
    def convert(self, model: CausalLM) -> None:
        for name, layer in list(model.named_modules()):
            if isinstance(layer, Lookalike):
                plain = nn.Linear(*reversed(layer.weight.shape), bias=False, device="meta")
                plain.weight = nn.Parameter(layer.weight.bfloat16().to(layer.weight.dtype))
                model.set_submodule(name, plain)


class LouderLinear(Packed):
    def dense(self) -> Tensor:
        return super().dense() * 2


class Louder(Base):
    """Everything comes back twice as large."""

    def layer(self, base: nn.Linear) -> nn.Module:
        layer: nn.Module = LouderLinear.of(base)
        return layer


class RolledLinear(Packed):
    """The scale of a row is in the row before it."""

    def pack(self, leaf: str, tensor: Tensor) -> nn.Parameter:
        packed = super().pack(leaf, tensor).detach()
        packed[:, -4:] = packed[:, -4:].roll(-1, 0)
        return nn.Parameter(packed, requires_grad=False)

    def dense(self) -> Tensor:
        packed = self.weight.detach()
        codes, scales = packed[:, :-4].view(torch.int8), packed[:, -4:].roll(1, 0).clone().view(torch.float32)
        return codes.float() * scales


class RolledScales(Base):
    def layer(self, base: nn.Linear) -> nn.Module:
        layer: nn.Module = RolledLinear.of(base)
        return layer


class BlockingLinear(Packed):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class Blocking(Base):
    """No gradient gets past a layer."""

    def layer(self, base: nn.Linear) -> nn.Module:
        layer: nn.Module = BlockingLinear.of(base)
        return layer


class ConvertsElse(Base):
    """What is served is another scale than what was trained with."""

    @torch.no_grad()
    def convert(self, model: CausalLM) -> None:
        for layer in block_linears(model).values():
            assert isinstance(layer, Packed)
            layer.weight = layer.pack("weight", layer.dense() * 1.05)


class StoringElse(Packed):
    def unpacked(self, leaf: str) -> Tensor:
        return self.dense() * 1.05


class StoresElse(Base):
    def layer(self, base: nn.Linear) -> nn.Module:
        layer: nn.Module = StoringElse.of(base)
        return layer


class RoundingLinear(nn.Linear):
    """Computes with rounded weights, and keeps them as they are."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight = base.weight

    def forward(self, x: Tensor) -> Tensor:
        scales = self.weight.abs().amax(1, keepdim=True) / 127
        rounded = (self.weight / scales).round() * scales
        return linear(x, self.weight + (rounded - self.weight).detach())


class NeverConverts(Base):
    """The rounding of training is simulated for ever, and no checkpoint has it."""

    def layer(self, base: nn.Linear) -> nn.Module:
        return RoundingLinear(base)
