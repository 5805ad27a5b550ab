"""Bytes of a GGUF file to tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from ptsdk.errors import Problem, UserError
from ptsdk_gguf.header import TensorInfo

PLAIN = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
    GGMLQuantizationType.F64: torch.float64,
}
"""Types that are stored as they are computed with."""
CHUNK = 2**22
"""Values unpacked at a time: what unpacking needs beside its result is some tens of MiB."""


def read_tensor(path: Path, info: TensorInfo) -> Tensor:
    """One tensor, in the file's dtype where it is a floating one, else float32, exactly as ggml
    unpacks it.

    Raises:
        UserError: the installed gguf package cannot unpack its type.
    """
    raw = np.memmap(path, dtype=np.uint8, mode="r", offset=info.start, shape=(info.size,))
    if info.kind in PLAIN:
        return torch.from_numpy(np.array(raw)).view(PLAIN[info.kind]).view(info.shape)
    try:
        return torch.from_numpy(_unpack(raw, info.kind)).view(info.shape)
    except NotImplementedError as error:
        hint = "take a file quantised to Q8_0, Q4_K_M or another common type"
        raise UserError(Problem(f"tensors of type {info.kind.name} cannot be unpacked", hint, str(path))) from error


def _unpack(raw: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """float32 values of whole blocks; blocks stand alone, so where rows end does not matter."""
    values, size = GGML_QUANT_SIZES[kind]
    blocks = raw.reshape(-1, size)
    out = np.empty((len(blocks), values), dtype=np.float32)
    step = max(1, CHUNK // values)
    for start in range(0, len(blocks), step):
        part = blocks[start : start + step]
        out[start : start + step] = dequantize(part.reshape(1, -1), kind).reshape(-1, values)
    return out.reshape(-1)
