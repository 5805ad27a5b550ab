"""Weights in fewer bits: codes and scales are those of torchao, one byte matrix holds both.

A packed weight is uint8 [out, row_bytes]: each row has the codes of that row of the weight and
then its scales. So a shard of packed rows is a packed shard, and what a checkpoint, a copy or
FSDP2 does with any matrix is right for it too. Unpacking gives torchao's ``dequantize``, bit for bit.

Shapes: weight [out, in], codes [out, in], scales [out, in / block].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

MULTIPLE = 16
"""Rows must be this many weights, or a multiple: the smallest block, and whole machine words."""

TWICE = {2: torch.int32, 4: torch.int64, 8: torch.complex128}
"""For the bytes of a number a dtype that holds two."""

NF4_ZERO = 7
"""The code of 0."""


def nf4_levels(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The 16 levels of NormalFloat-4 as torchao rounds them (arXiv:2305.14314, appendix E).

    Written here and not in a global, whose numbers torch.compile takes for inputs of a program and then loses.
    """
    levels = (
        -1.0000, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0000,
        0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0000,
    )  # fmt: skip
    return torch.tensor(levels, dtype=dtype, device=device)


@dataclass(frozen=True)
class Scheme(ABC):
    """How one kind of code is made and read."""

    bits: ClassVar[int]

    @abstractmethod
    def block(self, in_features: int) -> int:
        """Neighbours in a row that share a scale."""

    def scale_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """What scales are kept in, for weights of ``dtype``."""
        return dtype

    @abstractmethod
    def quantize(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Unsigned codes uint8 [out, in] and scales [out, in / block] of a weight, by torchao."""

    @abstractmethod
    def values(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """The numbers that codes stand for before scaling, in ``dtype``."""

    def fault(self, in_features: int) -> str | None:
        """Why rows of so many weights cannot be packed."""
        return None if in_features % MULTIPLE == 0 else f"{in_features} inputs are no multiple of {MULTIPLE}"

    def row_bytes(self, in_features: int, dtype: torch.dtype) -> int:
        """Bytes of one packed row."""
        scales = in_features // self.block(in_features) * self.scale_dtype(dtype).itemsize
        return in_features * self.bits // 8 + scales

    def pack(self, weight: Tensor) -> Tensor:
        """[out, in] -> uint8 [out, row_bytes]."""
        codes, scales = self.quantize(weight.detach())
        if self.bits == 4:
            codes = codes[:, ::2] << 4 | codes[:, 1::2]
        kept = scales.to(self.scale_dtype(weight.dtype)).contiguous().view(torch.uint8)
        return torch.cat([codes, kept], dim=1)

    def unpack(self, packed: Tensor, in_features: int, dtype: torch.dtype) -> Tensor:
        """uint8 [out, row_bytes] -> [out, in] in ``dtype``."""
        end = in_features * self.bits // 8
        codes, block = packed[:, :end], self.block(in_features)
        scales = packed[:, end:].clone().view(self.scale_dtype(dtype))  # a clone is aligned
        values = self._pairs(codes, dtype) if self.bits == 4 else self.values(codes, dtype)
        values = values.reshape(len(packed), in_features // block, block)  # of no rows too
        return (values * scales.unsqueeze(-1)).to(dtype).reshape(len(packed), in_features)

    def _pairs(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """The two numbers of each byte [out, in / 2]: [out, in]. Looked up as one of twice the width, in a table of
        all bytes: a sixth of the time that splitting them takes."""
        byte = torch.arange(256, dtype=torch.uint8, device=codes.device)
        table = self.values(torch.stack([byte >> 4, byte & 0b1111], dim=-1), dtype).view(TWICE[dtype.itemsize])
        return table.T.expand(len(codes), 256).gather(1, codes.long()).view(dtype)


@dataclass(frozen=True)
class NF4(Scheme):
    """4-bit NormalFloat with doubly quantised scales (arXiv:2305.14314), as ``torchao.NF4Tensor``.

    The scales are kept as they come out of their second quantisation: 4.5 bits a weight in
    bfloat16 (5 bits less a half in float32: 0.56 byte) instead of torchao's 4.13.
    """

    bits: ClassVar[int] = 4
    BLOCK: ClassVar[int] = 64
    SCALER_BLOCK: ClassVar[int] = 256

    def block(self, in_features: int) -> int:
        """64, or what of it divides a row."""
        return math.gcd(in_features, self.BLOCK)

    def quantize(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """What ``NF4Tensor.from_tensor`` makes, which holds the distances of a million weights to all 16 levels
        meanwhile. A block of zeros stays zeros; there torchao divides by 0."""
        rows, blocks = len(weight), weight.reshape(-1, self.block(weight.shape[1]))
        largest = blocks.abs().amax(1)
        codes = nearest_level(blocks / largest[:, None], nf4_levels(torch.float32, weight.device).to(weight))
        codes.masked_fill_(largest[:, None] == 0, NF4_ZERO)
        return codes.reshape(rows, -1), self._twice_quantized(largest).reshape(rows, -1)

    def _twice_quantized(self, scales: Tensor) -> Tensor:
        """[n] as they come out of 8 bits around their mean."""
        mean = scales.mean()
        centred = (scales - mean).view(-1, math.gcd(len(scales), self.SCALER_BLOCK))
        factor = 256 / (2 * centred.abs().amax(1, keepdim=True))
        codes = (centred * factor).round().clamp(-128, 127).to(torch.int8)
        return (codes / factor).flatten().to(scales.dtype) + mean

    def values(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """The levels."""
        return nf4_levels(dtype, codes.device)[codes.int()]


def nearest_level(values: Tensor, levels: Tensor) -> Tensor:
    """uint8, which of the sorted ``levels`` is nearest to each of ``values``; of two as near, the lower."""
    upper = torch.bucketize(values, levels, out_int32=True).clamp_(1, len(levels) - 1)
    is_lower = (values - levels[upper - 1]).abs() <= (values - levels[upper]).abs()
    return upper.to(torch.uint8).sub_(is_lower.to(torch.uint8))


@dataclass(frozen=True)
class Int8(Scheme):
    """Symmetric 8-bit integers with a float32 scale a row, as ``torchao.Int8WeightOnlyConfig``."""

    bits: ClassVar[int] = 8

    def block(self, in_features: int) -> int:
        """The row."""
        return in_features

    def scale_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Always float32."""
        return torch.float32

    def quantize(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """By ``Int8Tensor.from_hp``."""
        from torchao.quantization import Int8Tensor, PerRow

        packed = Int8Tensor.from_hp(weight, PerRow())
        return packed.qdata.view(torch.uint8), packed.scale

    def values(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """The integers -128 to 127."""
        return codes.view(torch.int8).to(dtype)


@dataclass(frozen=True)
class Int4(Scheme):
    """Symmetric 4-bit integers with a scale a group, as ``torchao.IntxWeightOnlyConfig(torch.int4)``."""

    bits: ClassVar[int] = 4

    group_size: int = 32

    def block(self, in_features: int) -> int:
        """The group."""
        return self.group_size

    def fault(self, in_features: int) -> str | None:
        """Groups must fill a row."""
        partial = in_features % self.group_size
        return super().fault(in_features) or (
            f"{in_features} inputs are no multiple of group_size {self.group_size}" if partial else None
        )

    def quantize(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """By ``IntxUnpackedToInt8Tensor.from_hp``."""
        from torchao.quantization import IntxUnpackedToInt8Tensor

        packed = IntxUnpackedToInt8Tensor.from_hp(weight, (1, self.group_size), torch.int4)  # type: ignore[attr-defined]
        return (packed.qdata + 8).view(torch.uint8), packed.scale

    def values(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """The integers -8 to 7."""
        return codes.to(dtype) - 8
