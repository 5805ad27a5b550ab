"""A data set as other processes would read it: one of several, and one whose sets have another order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from ptsdk._guard import explain
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.tokenizers import from_folder
from ptsdk.job.resolve import Resolver
from ptsdk.testing.seen import from_environment

WORLD = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


@contextmanager
def second_of_two() -> Iterator[None]:
    """Inside, this is process 1 of 2, by the environment and by torch.distributed; the other one is feigned."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WORLD.items():
            patch.setenv(name, value)
        if dist.is_initialized():
            yield
            return
        dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
        try:
            yield
        finally:
            dist.destroy_process_group()


def read_elsewhere(dataset: Mapping[str, Any], base: Path, folder: Path, tokenizer: Tokenizer) -> list[str]:
    """The ``repr`` of every example of a data set, read by a process with another hash seed.

    Args:
        dataset: as a job would write it.
        base: what its local file is relative to.
        folder: what its paths are relative to.
        tokenizer: encodes rows there too.

    Raises:
        AssertionError: it cannot be read there.
    """
    with TemporaryDirectory() as saved:
        tokenizer.save(Path(saved))
        answer = _asked(
            {
                "dataset": dict(dataset),
                "folders": [str(base), str(folder)],
                "tokenizer": saved,
                "environment": dict(os.environ),
                "path": sys.path,
            }
        )
    assert "error" not in answer, f"another process cannot read it: {answer['error']}"
    examples: list[str] = answer["examples"]
    return examples


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    process = _other_process()
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline() or '{"error": "the process ended"}')
    return answer


@cache
def _other_process() -> subprocess.Popen[str]:
    """One for all that this process asks; it ends with it, when its input does."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    return subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        text=True,
    )


def serve() -> None:
    """Answer a request a line until there are no more."""
    answers: IO[str] = sys.stdout
    with redirect_stdout(sys.stderr):
        for line in sys.stdin:
            try:
                answer: dict[str, Any] = {"examples": _read(**json.loads(line))}
            except BaseException as error:  # a third party's code may raise what is no Exception
                if isinstance(error, KeyboardInterrupt):
                    raise
                answer = {"error": explain(error)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _read(
    dataset: dict[str, Any], folders: list[str], tokenizer: str, environment: dict[str, str], path: list[str]
) -> list[str]:
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)
    base, folder = map(Path, folders)
    os.chdir(folder)
    encoder = from_folder(Path(tokenizer))
    assert encoder is not None
    data: Any = Resolver(from_environment(), base)("dataset", dataset)
    return [repr(data.encode(row, encoder)) for row in data.rows(folder)]
