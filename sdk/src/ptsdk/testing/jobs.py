"""Small real jobs: data for every objective, a model of some thousand weights, a few steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptsdk.contracts.run import Run
from ptsdk.errors import UserError
from ptsdk.job.job import Job
from ptsdk.job.load import make_job
from ptsdk.registry import Registry
from ptsdk.specs import MethodSpec
from ptsdk.train.assemble import assemble
from ptsdk.train.launch import run_job
from ptsdk.train.result import RunResult

WORDS = ("one", "row", "of", "data", "and", "what", "comes", "after", "it", "is", "learnt", "word", "by", "word")
DATASETS = {
    "token": "ptsdk/instruct",
    "preference": "ptsdk/preference",
    "binary": "ptsdk/binary",
    "policy": "ptsdk/prompts",
}
"""The data set of core for each objective, in full: what is tried may provide the same names."""
TINY: dict[str, Any] = {
    "use": "ptsdk/tiny",
    "config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
}
BATCH_SIZES = (4, 6, 8, 12, 16, 32, 64, 10, 20, 50, 7)


def words(start: int, count: int, stride: int = 1) -> str:
    """So many words, which ones depending on ``start``."""
    return " ".join(WORDS[(start + stride * i) % len(WORDS)] for i in range(count))


def example_row(i: int) -> dict[str, Any]:
    """A row that has the columns of every built-in data set; no two are alike or of one length."""
    prompt, good, bad = words(i, 1 + i % 4) + "? ", words(3 * i, 1 + (2 * i) % 5, 3), words(5 * i + 1, 1 + i % 3, 2)
    return {
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": good}],
        "prompt": prompt,
        "completion": good,
        "text": prompt + good,
        "chosen": good + " yes",
        "rejected": bad + " no",
        "label": i % 2 == 0,
        "answer": good,
    }


def write_rows(path: Path, rows: list[Mapping[str, Any]]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def job_values(
    folder: Path, registry: Registry, method: str | Mapping[str, Any] = "sft", **sections: Any
) -> dict[str, Any]:
    """The sections of a job on a tiny model from scratch, its data written to ``folder``.

    Args:
        folder: gets ``train.jsonl`` and, by default, the run in ``run``.
        registry: where the method is looked up, for its objective.
        method: a name, or a mapping with ``use``.
        sections: mappings are merged into the sections here, other values replace them.
    """
    data = write_rows(folder / "train.jsonl", [example_row(i) for i in range(12)])
    name = method if isinstance(method, str) else str(method["use"])
    dataset = {"use": DATASETS[objective_of(name, registry)], "path": str(data)}
    values: dict[str, Any] = {
        "api": 1,
        "model": TINY,
        "tokenizer": "ptsdk/bytes",
        "data": {"train": dataset, "max_length": 128},
        "method": method,
        "optimizer": {"use": "ptsdk/sgd", "lr": 0.1},
        "strategy": {"use": "ptsdk/single", "device": "cpu"},
        "loggers": ["ptsdk/jsonl"],
        "train": {"steps": 4, "batch_size": 4, "micro_batch_size": 2, "seed": 1, "clip_grad_norm": None},
        "output_dir": str(folder / "run"),
    }
    for key, value in sections.items():
        merges = isinstance(value, Mapping) and isinstance(values.get(key), Mapping) and "use" not in value
        values[key] = {**values[key], **value} if merges else value
    return values


def objective_of(method: str, registry: Registry) -> str:
    """What a method learns from; that of a class in a file is taken from the class, else ``token``."""
    if ".py:" in method:
        return "token"
    spec = registry.find("method", method).spec
    assert isinstance(spec, MethodSpec)
    return spec.objective


def make(values: Mapping[str, Any], registry: Registry, base: Path) -> Job:
    """The job, with the smallest of some batch sizes that its method can be given."""
    train = dict(values["train"])
    for size in dict.fromkeys((train["batch_size"], *BATCH_SIZES)):
        try:
            micro = train["micro_batch_size"] if size % train["micro_batch_size"] == 0 else 1
            sized = {**train, "batch_size": size, "micro_batch_size": micro}
            return make_job({**values, "train": sized}, registry, base)
        except UserError as error:
            if any(problem.path != "train.batch_size" for problem in error.problems):
                raise
    raise UserError(f"no batch size of {BATCH_SIZES} suits the method", hint="choose other options for the test")


def assembled(values: Mapping[str, Any], registry: Registry, base: Path) -> Run:
    """The live run of a job; nothing was written."""
    return assemble(make(values, registry, base), registry)


def train(values: Mapping[str, Any], registry: Registry, base: Path, *, resume: bool = False) -> RunResult:
    """Run a job in this process."""
    return run_job(make(values, registry, base), registry, resume=resume, overwrite=not resume)


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
