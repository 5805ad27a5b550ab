"""A row that trains: its job, and the batches of that job, which the peers are given as they are.

In a row's folder: ``job.yaml``; ``items.jsonl``, one packed sequence a line in the order that ptsdk trains on
them; ``row.json``, what the peers have to know and what a step is worth in tokens and operations; ``adapter/``,
where there is one, as it is before the first step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import flops
from tests.benchmarks.inputs import write_rows

LORA = {"use": "lora", "rank": 8, "alpha": 16, "targets": "all-linear"}


def write_job(
    folder: Path, model: Path | dict[str, Any], data: dict[str, Any], train: dict[str, Any], lr: float, **more: Any
) -> None:
    """``job.yaml``: AdamW, a constant learning rate, no validation, nothing on the terminal.

    Args:
        model: a folder, in float32, or the whole section.
    """
    job = {
        "api": 1,
        "model": model if isinstance(model, dict) else {"path": str(model), "dtype": "float32"},
        "data": data,
        "method": "sft",
        "optimizer": {"use": "adamw", "lr": lr},
        "loggers": ["jsonl"],
        "train": {"seed": 0, "clip_grad_norm": 1.0, **train},
        "output_dir": str(folder / "run"),
        **more,
    }
    (folder / "job.yaml").write_text(json.dumps(job, indent=1), encoding="utf-8")


Others = Callable[[list[int], int], int]
"""Operations of the models beside the policy: from the lengths of the documents and the rows with loss of a step."""


def write_items(folder: Path, others: Others = lambda seq_lens, scored: 0, **more: Any) -> None:
    """``items.jsonl``, ``row.json`` and ``adapter/`` of a row whose batches come from data.

    Args:
        folder: has the job.
        others: see there.
        more: of ``row.json``.
    """
    from ptsdk.job import load_job
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry
    from ptsdk.train.assemble import assemble

    registry = Registry(scan())
    job = load_job(folder / "job.yaml", (), registry)
    run = assemble(job, registry)
    if any(job.adapter.own(name) for name, _ in run.model.named_parameters()):
        tensors = {n: p.detach() for n, p in run.model.named_parameters() if job.adapter.own(n)}
        (folder / "adapter").mkdir(exist_ok=True)
        job.adapter.save(tensors, folder / "adapter", job.model.path)
    steps = [list(items(run)) for _ in range(run.total_steps)]
    write_rows(folder / "items.jsonl", [item for step in steps for item in step])
    rank = getattr(job.adapter, "rank", 0)
    counts = [counted(step, dict(run.config), rank, others) for step in steps]
    row = {
        **more,
        "model": job.model.path,
        "dtype": job.model.dtype,
        "lr": job.optimizer.lr,
        "steps": run.total_steps,
        "batch_size": job.train.batch_size,
        "micro_batch_size": job.train.micro_batch_size,
        "max_length": job.data.max_length,
        "config": dict(run.config),
        **{name: [count[name] for count in counts] for name in counts[0]},
    }
    (folder / "row.json").write_text(json.dumps(row), encoding="utf-8")


def items(run: Any) -> Iterator[dict[str, Any]]:
    """Each sequence of the next step: ``tokens``, ``labels`` (of the token after), ``seq_lens``."""
    for indices in run.train_plan.take(run.progress):
        batch = run.job.method.collate(run, [run.train_data[i] for i in indices])
        yield {
            "tokens": batch.tokens.tolist(),
            "labels": batch.labels.tolist(),
            "seq_lens": list(batch.seq_lens),
        }


def counted(step: list[dict[str, Any]], config: dict[str, Any], rank: int, others: Others) -> dict[str, int]:
    """Tokens, those that carry loss, and the operations of a step."""
    seq_lens = [n for item in step for n in item["seq_lens"]]
    supervised = sum(label >= 0 for item in step for label in item["labels"])
    operations = flops.training(config, seq_lens, supervised, rank) + others(seq_lens, supervised)
    return {"tokens": sum(seq_lens), "supervised": supervised, "flops": operations}
