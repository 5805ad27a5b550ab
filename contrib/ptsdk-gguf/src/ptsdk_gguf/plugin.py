"""What ptsdk-gguf contributes."""

from __future__ import annotations

from ptsdk.specs import CheckpointFormatSpec

PTSDK_API = 1


def ptsdk_checkpoint_formats() -> list[CheckpointFormatSpec]:
    """llama.cpp's file format."""
    summary = "llama.cpp's single file, quantised or not, read as float32"
    return [CheckpointFormatSpec("gguf", "ptsdk_gguf.format:GGUF", summary, suffixes=(".gguf",))]
