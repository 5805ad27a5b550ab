"""Kernels that take all documents at once, by where each begins: torch's own and flash-attn's.

Both are FlashAttention-2 (arXiv:2307.08691) on CUDA, whose window counts keys on either side of a query's
own: (w - 1, 0) is a query and the w - 1 keys before it, (-1, 0) all before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class Packed(ABC):
    """All documents in one call: an ``Attend``.

    Attributes:
        bounds: int32 [B + 1] on the device: where documents begin, and N.
        longest: of the documents, in tokens.
    """

    bounds: Tensor
    longest: int

    @classmethod
    def of(cls, seq_lens: tuple[int, ...], device: torch.device) -> Packed:
        """Of the documents of a batch."""
        bounds = torch.tensor([0, *accumulate(seq_lens)], dtype=torch.int32)
        return cls(bounds.to(device, non_blocking=True), max(seq_lens, default=0))

    def __call__(
        self, layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """See ``Attend``."""
        sides = (-1 if window is None else window - 1, 0)
        return self.kernel(q_NHE, k_NKE, v_NKE, scale, sides)

    @abstractmethod
    def kernel(self, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, scale: float, sides: tuple[int, int]) -> Tensor:
        """The mixed values [N, H, E]; a query sees so many keys on its left and on its right, all for -1."""


@dataclass(frozen=True, eq=False)
class Varlen(Packed):
    """``torch.nn.attention.varlen``, of torch 2.11 and later.

    Attributes:
        told_of_groups: whether it wants to hear of heads that share keys, as it does since torch 2.12; before, it takes
            them as they are.
    """

    told_of_groups: bool = False

    @classmethod
    def of(cls, seq_lens: tuple[int, ...], device: torch.device) -> Varlen:
        """See ``Packed.of``."""
        packed = super().of(seq_lens, device)
        return cls(packed.bounds, packed.longest, "enable_gqa" in varlen_parameters())

    def kernel(self, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, scale: float, sides: tuple[int, int]) -> Tensor:
        """See ``Packed.kernel``."""
        from torch.nn.attention.varlen import varlen_attn

        call: Callable[..., Any] = varlen_attn
        groups = {"enable_gqa": q_NHE.shape[1] != k_NKE.shape[1]} if self.told_of_groups else {}
        lengths = (self.bounds, self.bounds, self.longest, self.longest)
        mixed: Tensor = call(q_NHE, k_NKE, v_NKE, *lengths, scale=scale, window_size=sides, **groups)
        return mixed


class Flash(Packed):
    """The package flash-attn."""

    def kernel(self, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, scale: float, sides: tuple[int, int]) -> Tensor:
        """See ``Packed.kernel``."""
        from flash_attn import flash_attn_varlen_func

        call: Callable[..., Tensor] = flash_attn_varlen_func
        lengths = (self.bounds, self.bounds, self.longest, self.longest)
        return call(q_NHE, k_NKE, v_NKE, *lengths, softmax_scale=scale, causal=True, window_size=sides)


def varlen_parameters() -> frozenset[str]:
    """What torch's kernel can be told, which differs from torch to torch; nothing where there is no kernel."""
    if find_spec("torch.nn.attention.varlen") is None:
        return frozenset()
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(signature(varlen_attn).parameters)


def why_not(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """What FlashAttention-2 has no kernel for; None where it has one."""
    if device.type != "cuda":
        return f"it runs on cuda, not on {device.type}"
    major: Any = torch.cuda.get_device_capability(device)[0]
    if major < 8:
        return f"it needs a GPU of compute capability 8.0, this one has {major}"
    if dtype not in HALVES:
        return f"it computes in bfloat16 or float16, the model is in {str(dtype).removeprefix('torch.')}"
    if head_dim > 256 or head_dim % 8:
        return f"its heads have at most 256 numbers, a multiple of 8; the model's have {head_dim}"
    return None
