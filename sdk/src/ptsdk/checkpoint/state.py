"""One checkpoint: the model or its adapter, the optimizer, and where the run was.

step-00000100/manifest.json              size and SHA-256 of every file below
              model.safetensors|adapter/ every weight, or the adapter as PEFT reads it
              optimizer.safetensors      every tensor of the optimizer and of the state
              state.json                 the rest of both: cursor, RNG, method state, numbers
"""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptsdk.checkpoint.files import atomic_folder, write_json
from ptsdk.checkpoint.run_dir import RunDir, step_of
from ptsdk.checkpoint.tensors import TensorFiles, copied, save_tensors
from ptsdk.checkpoint.tree import flatten_state, unflatten_state
from ptsdk.errors import UserError

FORMAT = 1
MODEL, ADAPTER, OPTIMIZER, STATE = "model.safetensors", "adapter", "optimizer.safetensors", "state.json"
LOCK = "lock.json"


@dataclass(frozen=True)
class CheckpointContents:
    """What a checkpoint holds; tensors are memory-mapped.

    Attributes:
        step: optimizer steps taken.
        model: every trained weight by name, None where ``adapter`` holds what was trained.
        adapter: the folder that ``Adapter.save`` wrote, for ``Adapter.load``.
        optimizer_state: makes it, as given to ``draft_checkpoint``; UserError where this job lacks a class of it.
        state: as given to ``draft_checkpoint``.
        lock: the run's lock.json when it was saved, None where there was none.
    """

    step: int
    model: Mapping[str, Tensor] | None
    adapter: Path | None
    optimizer_state: Callable[[], dict[str, Any]]
    state: dict[str, Any]
    lock: dict[str, Any] | None


@dataclass(frozen=True)
class Draft:
    """A checkpoint that is not written yet.

    Attributes:
        step: optimizer steps taken.
        model: the trained weights by name.
        adapter: writes ``model`` as an adapter into a folder; None where these are all the weights.
        tensors, tree: of the optimizer and the state, as ``flatten_state`` gives them.
    """

    step: int
    model: Mapping[str, Tensor]
    adapter: Callable[[Mapping[str, Tensor], Path], None] | None
    tensors: Mapping[str, Tensor]
    tree: dict[str, Any]

    def apart(self, live: Collection[int]) -> Draft:
        """The same, with copies of the tensors of the state, and of those whose storage is at one of the
        addresses ``live``: what is done to these afterwards does not reach it."""
        state = {t.untyped_storage().data_ptr() for place, t in self.tensors.items() if place.startswith("/state/")}
        return replace(self, model=copied(self.model, live), tensors=copied(self.tensors, {*live, *state}))

    def write(self, run_dir: RunDir) -> Path:
        """Write it: complete and durable when this returns, absent when it fails. Works on any thread.

        Returns:
            Its folder.

        Raises:
            WriteError: the disk is full, or similar. Nothing is left.
            RunError: a tensor that cannot be stored.
        """
        path = run_dir.checkpoint(self.step)
        with atomic_folder(path, manifest=True, replace=True) as folder:
            if self.adapter is None:
                save_tensors(self.model, folder / MODEL)
            else:
                (folder / ADAPTER).mkdir()
                self.adapter(self.model, folder / ADAPTER)
            save_tensors(self.tensors, folder / OPTIMIZER)
            write_json(folder / STATE, {"format": FORMAT, "step": self.step, **self.tree})
            if run_dir.lock_file.exists():
                shutil.copyfile(run_dir.lock_file, folder / LOCK)
        return path


def draft_checkpoint(
    step: int,
    model: Mapping[str, Tensor],
    optimizer_state: Mapping[str, Any],
    state: Mapping[str, Any],
    adapter: Callable[[Mapping[str, Tensor], Path], None] | None = None,
) -> Draft:
    """The checkpoint of ``step``, to be written. It holds the tensors it is given; of all else, later changes
    are not seen.

    Args:
        step, model, adapter: see ``Draft``.
        optimizer_state, state: trees of tensors, numbers, strings, lists and mappings.

    Raises:
        RunError: a state holds what cannot be stored.
    """
    return Draft(step, model, adapter, *flatten_state({"optimizer": optimizer_state, "state": state}))


def load_checkpoint(path: Path) -> CheckpointContents:
    """Open a checkpoint that ``RunDir.newest_intact`` found intact.

    Raises:
        UserError: it was written by a newer ptsdk, or lacks a part.
    """
    try:
        tree = json.loads((path / STATE).read_text(encoding="utf-8"))
        if tree["format"] != FORMAT:
            raise UserError(
                f"checkpoint {path} has format {tree['format']}, this ptsdk reads {FORMAT}",
                hint="resume with the version of ptsdk that its lock.json names",
            )
        tensors = TensorFiles.of(path / OPTIMIZER)
        # Made when the locks have been compared: a job with another optimizer is told that, not what it cannot make.
        optimizer = partial(unflatten_state, tensors, tree["optimizer"])
        state = unflatten_state(tensors, tree["state"])
        lock = json.loads((path / LOCK).read_text(encoding="utf-8")) if (path / LOCK).is_file() else None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"checkpoint {path} cannot be read: {error!r}") from error
    adapter = path / ADAPTER if (path / ADAPTER).is_dir() else None
    if adapter is None and not (path / MODEL).is_file():
        raise UserError(f"checkpoint {path} holds neither {MODEL} nor {ADAPTER}/")
    model = TensorFiles.of(path / MODEL) if adapter is None else None
    return CheckpointContents(step_of(path), model, adapter, optimizer, state, lock)


def capture_rng() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators (every CUDA device), JSON-able."""
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, gauss = numpy_state
    return {
        "python": random.getstate(),
        "numpy": [name, _encode(keys.tobytes()), position, has_gauss, gauss],
        "torch": _encode(torch.get_rng_state().numpy().tobytes()),
        "cuda": [_encode(state.numpy().tobytes()) for state in _cuda_states()],
    }


def restore_rng(state: Mapping[str, Any]) -> list[str]:
    """Put every generator back where ``capture_rng`` found it.

    Returns:
        Warnings: the number of CUDA devices differs, so that their draws do not continue.
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.frombuffer(base64.b64decode(keys), dtype=np.uint32), *rest))
    torch.set_rng_state(_decode(state["torch"]))
    saved, here = state["cuda"], torch.cuda.device_count()
    if len(saved) != here:
        return [f"the checkpoint has random states of {len(saved)} CUDA devices, here are {here}: theirs start anew"]
    torch.cuda.set_rng_state_all([_decode(text) for text in saved])
    return []


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _decode(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
