"""The batches that a plan assumes: those of the data where it is at hand, else the longest there may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ptsdk.contracts.dataset import Dataset
from ptsdk.contracts.strategy import World
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import Document, Example, Examples
from ptsdk.data.order import SamplePlan
from ptsdk.job.job import Job
from ptsdk.job.resolve import ReadsFiles
from ptsdk.specs import Objective
from ptsdk.train.assemble import sample_plan
from ptsdk.train.reading import read_data

AT_HAND = 2**22
"""Bytes of local data files that are tokenized for their lengths; of more, ``max_length`` is assumed."""


@dataclass(frozen=True)
class Workload:
    """What a step reads.

    Attributes:
        device: where the run will be; it decides what ``dtype: auto`` is.
        tokenizer: the run's.
        examples: what there is to read.
        lengths: tokens of each.
        sizes: examples of each data set.
        from_data: whether they are the job's own; else all are as long as the job allows.
    """

    device: torch.device
    tokenizer: Tokenizer
    examples: Examples
    lengths: NDArray[np.integer]
    sizes: tuple[int, ...]
    from_data: bool

    def plan(self, job: Job, world: World) -> SamplePlan:
        """Which of them each step reads."""
        return sample_plan(job, self.lengths, self.sizes, world)


class Same(Examples):
    """``n`` times the same example."""

    def __init__(self, example: Example, n: int) -> None:
        self._example, self._n = example, n

    def __len__(self) -> int:
        return self._n

    def item(self, index: int) -> Example:
        """See ``ByNumber``."""
        return self._example

    def place(self, index: int) -> str:
        """It was made up."""
        return "assumed"


def workload_of(job: Job, tokenizer: Tokenizer, device: torch.device, *, read: bool = True) -> Workload:
    """What ``job`` reads.

    Args:
        read: look at the data, if it is small and local.

    Raises:
        UserError: the data cannot be used.
    """
    if read and is_at_hand(job.data.train, job.base):
        data = read_data(job, job.data.train, tokenizer)
        return Workload(device, tokenizer, data.store, data.store.lengths, data.sizes, from_data=True)
    example = longest(job.objective, job.data.max_length)
    sets = len(job.data.train)
    each = max(1, job.train.batch_size)
    lengths = np.full(each * sets, example.length)
    return Workload(device, tokenizer, Same(example, each * sets), lengths, (each,) * sets, from_data=False)


def is_at_hand(datasets: Sequence[Dataset], base: Path) -> bool:
    """Whether the data is in local files, and small."""
    files = [file for dataset in datasets if isinstance(dataset, ReadsFiles) for file in dataset.files(base)]
    paths = [Path(file.url) for file in files if "://" not in file.url]
    whole = all(isinstance(dataset, ReadsFiles) and dataset.files(base) for dataset in datasets)
    return whole and len(paths) == len(files) and sum(path.stat().st_size for path in paths) <= AT_HAND


def longest(objective: Objective, length: int) -> Example:
    """The largest example an objective may have, every token of it supervised but the first."""
    document = Document((0,) * length, (False, *[True] * (length - 1)))
    return Example((document, document) if objective == "preference" else (document,))
