"""A gigabyte of safetensors into a model: ``load.py FOLDER {ptsdk|mapped|transformers}``, to the last byte."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from tests.benchmarks.contestants.report import peak_bytes, row, told

Load = Callable[[Path], Iterable[torch.Tensor]]


def ptsdk() -> Load:
    import ptsdk_gemma.model  # noqa: F401  as with transformers, importing the family is not loading
    from ptsdk.api import load_model

    return lambda folder: load_model(folder).parameters()


def mapped() -> Load:
    from safetensors.torch import load_file

    return lambda folder: load_file(folder / "model.safetensors").values()


def transformers() -> Load:
    from transformers import Gemma3ForCausalLM

    return lambda folder: Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32).parameters()


def main() -> None:
    load, folder = {"ptsdk": ptsdk, "mapped": mapped, "transformers": transformers}[sys.argv[2]](), Path(row()["model"])
    before = peak_bytes()
    start = time.perf_counter()
    tensors = list(load(folder))
    with torch.no_grad():
        for tensor in tensors:
            tensor.sum()
    told(load_seconds=time.perf_counter() - start, grown_bytes=peak_bytes() - before)


if __name__ == "__main__":
    main()
