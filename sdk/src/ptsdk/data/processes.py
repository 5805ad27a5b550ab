"""Rows to examples in several processes, with the results of one.

A worker is an interpreter of its own that is handed plain data over a pipe: the tokenizer as its files, the data
set as class and options, rows as JSON. Whatever it cannot do (a row that JSON cannot hold, an exception) is done
by this process instead, which then raises what it would have raised alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from safetensors.numpy import load

from ptsdk.data.columns import from_columns
from ptsdk.data.example import Row
from ptsdk.data.frames import receive, send
from ptsdk.data.pipeline import PROBLEMS, Encoded, Rules, encode_rows
from ptsdk.data.report import Tally
from ptsdk.data.spelling import spelled
from ptsdk.data.store import StoreBuilder, concat
from ptsdk.data.tokenizers import FastTokenizer
from ptsdk.errors import Problem, RunError, UserError

if TYPE_CHECKING:
    from ptsdk.contracts.dataset import Dataset
    from ptsdk.data.tokenizer import Tokenizer

CHUNK = 64
"""Rows that a worker takes at once."""
AHEAD = 3
"""Chunks that are read ahead for each worker."""
PLAIN = frozenset({str, int, float, bool, type(None)})
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
"""Of a worker: it is one of many."""


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processes:
    """Workers that share one tokenizer; use as a context. They are started when they are first needed, and
    until they are ready this process does their work: so that a few rows need not wait for them.

    Args:
        tokenizer: of the run.
        count: how many; one means this process alone.
    """

    def __init__(self, tokenizer: Tokenizer, count: int) -> None:
        self._tokenizer, self._count = tokenizer, count
        self._files = TemporaryDirectory()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._mine = threading.local()
        self._closed = False
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.kill()
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.communicate()
        self._files.cleanup()

    def encode(self, dataset: Dataset, rows: Iterable[Row], rules: Rules) -> Encoded:
        """``pipeline.encode_rows``, the same to the bit.

        Raises:
            RunError: a worker died.
        """
        words = spelled(dataset) if self._count > 1 else None
        if words is None:
            return encode_rows(dataset, rows, self._tokenizer, rules)
        parts, total, problems = [StoreBuilder().build()], Tally(), list[Problem]()
        for part in self._parts(dataset, rows, rules, {"dataset": words, "rules": asdict(rules)}):
            parts.append(part.store)
            total.merge(part.tally)
            problems += part.problems
            if len(problems) > PROBLEMS:
                break
        return Encoded(concat(parts), total, tuple(problems[: PROBLEMS + 1]))

    def _parts(self, dataset: Dataset, rows: Iterable[Row], rules: Rules, task: dict[str, Any]) -> Iterator[Encoded]:
        """The examples of chunk after chunk; one that no worker has begun when its turn comes is made here."""

        def made(chunk: list[Row], asked: Future[Encoded | None]) -> Encoded:
            known = None if asked.cancel() else asked.result()
            return known or encode_rows(dataset, chunk, self._tokenizer, rules)

        waiting: deque[tuple[list[Row], Future[Encoded | None]]] = deque()
        threads, ended = self._started(), None
        for chunk, error in _chunks(rows):
            ended = error
            waiting.append((chunk, threads.submit(self._ask, task, chunk)))
            if len(waiting) > AHEAD * self._count:
                yield made(*waiting.popleft())
        while waiting:
            yield made(*waiting.popleft())
        if ended:
            raise ended

    def _started(self) -> ThreadPoolExecutor:
        """A thread for each worker."""
        if self._threads is None:
            self._tokenizer.save(Path(self._files.name))
            tokenizer = self._tokenizer
            begin: dict[str, Any] = {"folder": self._files.name, "fingerprint": tokenizer.fingerprint()}
            if type(tokenizer) is FastTokenizer:
                begin["facts"] = tokenizer.facts()._asdict()
            self._threads = ThreadPoolExecutor(self._count, "tokenize", self._start, (begin,))
        return self._threads

    def _start(self, begin: dict[str, Any]) -> None:
        """Start the worker of this thread, and wait until it is ready."""
        self._mine.worker = None
        with self._lock:
            if self._closed:
                return
            # -P: the working directory is no place to import from, unless it is one for this process too.
            worker = subprocess.Popen(
                [sys.executable, "-P", "-c", "from ptsdk.data.worker import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            self._workers.append(worker)
        answer = _asked(worker, json.dumps(begin).encode())
        if answer and answer["why"] is None:
            self._mine.worker = worker
        elif not self._closed:
            why = answer["why"] if answer else f"exit status {worker.wait()}"
            print(f"ptsdk: a process that was to tokenize rows does not: {why}", file=sys.stderr)

    def _ask(self, task: dict[str, Any], chunk: list[Row]) -> Encoded | None:
        """The examples of ``chunk`` by this thread's worker; None where it cannot make them."""
        worker: subprocess.Popen[bytes] | None = self._mine.worker
        question = None if worker is None else _json(task, chunk)
        if worker is None or question is None:
            return None
        answer = _asked(worker, question)
        arrays = answer and "failed" not in answer and _receive(worker)
        if answer is None or arrays is None:
            raise RunError(f"a process that tokenizes rows ended (exit status {worker.wait()})")
        return from_columns(load(arrays), answer) if arrays else None


def _asked(worker: subprocess.Popen[bytes], question: bytes) -> dict[str, Any] | None:
    """The answer; None from a worker that has died."""
    assert worker.stdin
    try:
        send(worker.stdin, question)
    except BrokenPipeError:
        return None
    answer = _receive(worker)
    return None if answer is None else json.loads(answer)


def _receive(worker: subprocess.Popen[bytes]) -> bytes | None:
    assert worker.stdout
    return receive(worker.stdout)


def _json(task: dict[str, Any], chunk: list[Row]) -> bytes | None:
    """The task for a worker; None of rows that would not come out of JSON as they are."""
    rows = [[row.values, row.place, row.fault] for row in chunk]
    try:
        return json.dumps({**task, "rows": rows}).encode() if _is_plain(rows) else None
    except (ValueError, RecursionError):  # a number of thousands of digits, or nesting without end
        return None


def _is_plain(value: Any) -> bool:
    """Whether it is made of nothing but what JSON has."""
    left = [value]
    while left:
        one = left.pop()
        kind = type(one)
        if kind is list:
            left += one
        elif kind is dict:
            left += one.values()
            if not all(type(key) is str for key in one):
                return False
        elif kind not in PLAIN:
            return False
    return True


def _chunks(rows: Iterable[Row]) -> Iterator[tuple[list[Row], UserError | None]]:
    """Rows by ``CHUNK``, and with the last what ended the reading: what rows before it are refused for comes first."""
    chunk: list[Row] = []
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) == CHUNK:
                yield chunk, None
                chunk = []
    except UserError as error:
        yield chunk, error
        return
    yield chunk, None
