"""The data of a job as examples: made by all cores, and only once."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

from ptsdk.checkpoint.environment import required_dists, source_digest
from ptsdk.checkpoint.examples import kept
from ptsdk.contracts.component import record
from ptsdk.contracts.dataset import Dataset
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.pipeline import Encoded, EncodedData, Rules, joined
from ptsdk.data.processes import Processes, cores
from ptsdk.data.stream import Stream
from ptsdk.errors import UserError
from ptsdk.job.job import Job

FEW = 1000
"""Rows that are made into examples each time: it takes about a second."""


def read_data(job: Job, datasets: tuple[Dataset, ...], tokenizer: Tokenizer) -> EncodedData:
    """Rows to examples, by the rules of the job's data section.

    Raises:
        UserError: rows or files that forbid it; see ``pipeline.encode``.
    """
    rules = rules_of(job)
    with Processes(tokenizer, cores()) as processes:
        return joined(datasets, [_read(job, dataset, tokenizer, rules, processes) for dataset in datasets])


def open_stream(job: Job, tokenizer: Tokenizer) -> Stream:
    """The training data, of which nothing is made into examples yet.

    Raises:
        UserError: a data set that cannot be streamed, or has no row that can be used.
    """
    datasets = job.data.train
    return Stream(datasets, [dataset.by_number(job.base) for dataset in datasets], tokenizer, rules_of(job))


def rules_of(job: Job) -> Rules:
    """What becomes of rows that do not fit."""
    data = job.data
    return Rules(data.max_length, data.on_long_row, data.on_bad_row, job.objective)


def _read(job: Job, dataset: Dataset, tokenizer: Tokenizer, rules: Rules, processes: Processes) -> Encoded:
    def make() -> Encoded:
        return processes.encode(dataset, dataset.rows(job.base), rules)

    if _asks_the_clock(tokenizer) or not _has_more(job, dataset, FEW):
        return make()
    return kept(partial(key_of, job, dataset, tokenizer, rules), make)


def _has_more(job: Job, dataset: Dataset, rows: int) -> bool:
    """Whether there are more than so many rows; not where one of them cannot be read on from, which is told when those
    before it are made into examples."""
    try:
        return any(True for _ in islice(dataset.rows(job.base), rows, None))
    except UserError:
        return False


def _asks_the_clock(tokenizer: Tokenizer) -> bool:
    """Whether tomorrow's ids may be others."""
    return any("strftime_now" in (template or "") for template in (tokenizer.chat_template, tokenizer.tool_template))


def key_of(job: Job, dataset: Dataset, tokenizer: Tokenizer, rules: Rules) -> str:
    """A hash of all that decides the examples of ``dataset``, their places and what is counted: the rows, the
    tokenizer and its template, options and rules, and the code.

    Args:
        job: knows where the data lies and which package reads it.
        dataset: one of its data sets.
        tokenizer: of the run.
        rules: what becomes of rows that do not fit.
    """
    dists = {"ptsdk", *(entry.dist for entry in job.entries.values() if entry.kind in ("dataset", "tokenizer"))} - {""}
    made_of: dict[str, Any] = {
        "data": dataset.fingerprint(job.base),
        "options": record(dataset),
        "places": [str(job.base.resolve()), str(job.base), [file.name for file in _files(job, dataset)]],
        "tokenizer": tokenizer.fingerprint(),
        "rules": asdict(rules),
        "classes": [_code(type(dataset)), _code(type(tokenizer))],
        "dists": required_dists(dists),
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _files(job: Job, dataset: Dataset) -> list[Any]:
    """What a data set of files is about to read."""
    return dataset.files(job.base) if hasattr(dataset, "files") else []


def _code(cls: type) -> dict[str, str | None]:
    """The classes it is made of, each with a hash of the sources of its package. The module of a local file is
    named by a hash of its text."""
    names = {f"{base.__module__}:{base.__qualname__}": base.__module__.partition(".")[0] for base in cls.__mro__}
    unknown = sys.stdlib_module_names | {root for root in names.values() if root.startswith("ptsdk_local_")}
    digests = {root: source_digest(root) for root in {*names.values()} - unknown}
    return {name: digests.get(root) for name, root in names.items()}
