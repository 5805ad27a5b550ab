"""The reference's log-probs of every pair, computed once and kept in the run directory.

<output_dir>/reference/log_probs.safetensors   train [n, 2], validation [m, 2]: chosen, rejected
                       fingerprint.json        what they were computed from
                       manifest.json           size and SHA-256 of both
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ptsdk.checkpoint.environment import model_fingerprint, source_digest
from ptsdk.checkpoint.files import atomic_folder, verify_manifest, write_json
from ptsdk.checkpoint.tensors import TensorFiles, save_tensors
from ptsdk.checkpoint.weights import resolve_dtype
from ptsdk.contracts.component import record
from ptsdk.contracts.run import serving
from ptsdk.data.example import Example
from ptsdk.data.order import validation_batches
from ptsdk.nn.causal_lm import CausalLM
from ptsdk_dpo.scoring import score

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run

FOLDER, TENSORS, FINGERPRINT = "reference", "log_probs.safetensors", "fingerprint.json"


def precompute(run: Run) -> dict[str, Tensor]:
    """The log-probs of the policy as it is now, before it was trained or restored.

    Called by all processes together. What is on disk is used where it was computed from the same
    model and data, and is otherwise replaced.

    Returns:
        ``train`` [n, 2] and ``validation`` [m, 2], float32 on the CPU: chosen and rejected
        completion of each example.

    Raises:
        WriteError: the run directory has no room for them.
    """
    folder = run.output_dir / FOLDER
    datasets = {"train": run.train_data, "validation": run.validation_data}
    made_of = fingerprint(run, datasets) if run.world.is_main else {}
    known: dict[str, Tensor] | None = run.strategy.broadcast(read(folder, made_of) if run.world.is_main else None)
    if known is None:
        with starting_policy(run) as model:
            known = {name: log_probs(run, model, data) for name, data in datasets.items()}
        if run.world.is_main:
            write(folder, known, made_of)
            _tell(f"log-probs of the reference are kept in {folder}")
    return known


def log_probs(run: Run, model: CausalLM, data: Sequence[Example]) -> Tensor:
    """[n, 2] of all examples, each computed by one process and known to all."""
    parts = [torch.empty(0)]
    lengths = [example.length for example in data]
    for indices in validation_batches(lengths, run.job.train.cut, run.world.rank, run.world.size):
        scores = score(model, run.job.method.micro_batch(run, data, indices).to(run.world.device))
        parts += [scores.cpu()] if indices else []  # a filler keeps step with the other processes
    return torch.cat(run.strategy.collect(torch.cat(parts))).reshape(-1, 2)


@contextmanager
def starting_policy(run: Run) -> Iterator[CausalLM]:
    """The model of a run that has not begun, as it serves."""
    if run.job.adapter.keeps_base:
        with run.reference() as model:
            yield model
    else:
        with torch.no_grad(), serving(run.model):
            yield run.model


def read(folder: Path, made_of: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """What ``write`` left, if it is intact and was made of the same."""
    if not folder.exists():
        return None
    problems = verify_manifest(folder)
    if not problems and json.loads((folder / FINGERPRINT).read_text(encoding="utf-8")) != made_of:
        problems = ["they are of another model or other data"]
    if problems:
        _tell(f"log-probs in {folder} are computed anew: {'; '.join(problems)}")
        return None
    return {name: tensor.clone() for name, tensor in TensorFiles.of(folder / TENSORS).items()}


def write(folder: Path, known: Mapping[str, Tensor], made_of: Mapping[str, Any]) -> None:
    """Put them on disk, complete or not at all."""
    with atomic_folder(folder, manifest=True, replace=True) as partial:
        save_tensors(known, partial / TENSORS)
        write_json(partial / FINGERPRINT, made_of)


def fingerprint(run: Run, datasets: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """All that decides the numbers, but for rounding."""
    job = run.job
    parts = [entry for entry in job.entries.values() if entry.dist and entry.kind in ("model-family", "quantizer")]
    modules = {"ptsdk", "ptsdk_dpo", *(entry.spec.target.partition(".")[0] for entry in parts)}
    made_of = {
        "model": model_fingerprint(run.checkpoint.path) if run.checkpoint else f"seed {job.train.seed}",
        "config": run.config,
        "dtype": str(resolve_dtype(job.model.dtype, run.world.device)),
        "quantizer": record(job.quantizer) if job.quantizer else None,
        "torch": torch.__version__,
        "sources": {module: source_digest(module) for module in sorted(modules)},
        "files": dict(job.local_files),
        "data": {name: digest(data) for name, data in datasets.items()},
    }
    as_read: dict[str, Any] = json.loads(json.dumps(made_of))  # tuples of a config come back as lists
    return as_read


def digest(data: Sequence[Example]) -> str:
    """SHA-256 over the tokens and masks of every document, in order."""
    total = hashlib.sha256()
    for example in data:
        for document in example.documents:
            total.update(len(document.tokens).to_bytes(8, "little"))
            total.update(array("i", document.tokens).tobytes())
            total.update(bytes(document.supervised))
    return total.hexdigest()


def _tell(message: str) -> None:
    print(f"ptsdk: {message}", file=sys.stderr, flush=True)
