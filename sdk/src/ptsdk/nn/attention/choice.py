"""Which backend a model gets: the one its job names, or the best that this device has."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch

from ptsdk.nn.attention.documents import Documents
from ptsdk.nn.attention.packed import Flash, Packed, Varlen, varlen_parameters, why_not
from ptsdk.nn.attention.seam import Backend

Wish = Literal["auto", "sdpa", "varlen", "flex", "flash"]


class Unavailable(ValueError):
    """A backend that cannot run here; the message says why."""


def choose(wish: Wish, device: torch.device, dtype: torch.dtype, head_dim: int) -> Backend:
    """The backend of that name.

    Args:
        wish: ``auto`` is torch's varlen where there is a kernel for the device, dtype and heads, else sdpa.
        device, dtype, head_dim: of queries, keys and values.

    Raises:
        Unavailable: it cannot run here.
    """
    if wish == "auto":
        wish = "sdpa" if obstacle("varlen", device, dtype, head_dim) else "varlen"
    if reason := obstacle(wish, device, dtype, head_dim):
        raise Unavailable(f"{wish} attention cannot be had: {reason}")
    if wish == "flex":
        from ptsdk.nn.attention.flex import Flex  # imports torch's compiler, which takes seconds

        return Flex.of
    kernels: dict[str, type[Packed]] = {"varlen": Varlen, "flash": Flash}
    return kernels[wish].of if wish in kernels else Documents.of


def obstacle(wish: Wish, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """What keeps a backend from running here; None where nothing does."""
    if wish == "flash" and find_spec("flash_attn") is None:
        return "the package flash-attn is not installed"
    if wish == "flex" and device.type not in ("cuda", "xpu"):
        return f"it is compiled for cuda and xpu; on {device.type} it would make every score"
    if wish in ("varlen", "flash") and (reason := why_not(device, dtype, head_dim)):
        return reason
    if wish == "varlen" and "window_size" not in varlen_parameters():
        return f"torch {torch.__version__} does not have it with a scale and a window, 2.11 does"
    return None
