"""Rows to examples in several processes, with the results of one.

A worker is a process that is handed plain data over a socket: the tokenizer as its files, the data set as class and
options, rows as JSON. Whatever it cannot do (a row that JSON cannot hold, an exception) is done by this process
instead, which then raises what it would have raised alone. All are children of one interpreter that has read the
tokenizer, and is not this one: a process that runs threads cannot be forked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from io import BufferedIOBase
from itertools import chain, islice
from pathlib import Path
from socket import socket, socketpair
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from safetensors.numpy import load

from ptsdk.data.columns import from_columns
from ptsdk.data.example import Row
from ptsdk.data.frames import packed, receive, send, stream_of, unpacked
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
MANY = 2048
"""Rows that this process makes by itself where there are no more: in the time that workers take to be ready."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAYON_NUM_THREADS": "1",
}
"""Of a worker: it is one of many."""
TUNABLES = "glibc.malloc.tcache_count=2000:glibc.malloc.hugetlb=1"
"""A row makes and frees thousands of small pieces, of which glibc would keep 7 of a size at hand (a tenth of the time),
and looks them up all over a large vocabulary (a twentieth, in large pages)."""


def cores() -> int:
    """How many this process may use; one where processes cannot be forked."""
    if not hasattr(os, "fork"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processes:
    """Workers that share one tokenizer; use as a context. They are started for the first data set of many rows, and
    until they are ready this process does their work.

    Args:
        tokenizer: of the run.
        count: how many; one means this process alone.
    """

    def __init__(self, tokenizer: Tokenizer, count: int) -> None:
        self._tokenizer, self._count = tokenizer, count
        self._files = TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        self._streams: list[BufferedIOBase] = []
        self._threads: ThreadPoolExecutor | None = None
        self._mine = threading.local()
        self._tells = True
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tells = False
        if self._process and self._process.poll() is None:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
        for stream in self._streams:
            with suppress(ConnectionError):  # of what a worker that has died did not take
                stream.close()
        if self._process:
            self._process.wait()
        self._files.cleanup()

    def encode(self, dataset: Dataset, rows: Iterable[Row], rules: Rules) -> Encoded:
        """``pipeline.encode_rows``, the same to the bit.

        Raises:
            RunError: a worker died.
        """
        # A class of a plugin may do what no file of it says.
        own = type(self._tokenizer).__module__.startswith("ptsdk.data.")
        words = spelled(dataset) if own and self._count > 1 else None
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

        def made(chunk: list[Row], asked: Future[Encoded | None] | None) -> Encoded:
            known = None if asked is None or asked.cancel() else asked.result()
            return known or encode_rows(dataset, chunk, self._tokenizer, rules)

        chunks = _chunks(rows)
        first = list(islice(chunks, 1 + MANY // CHUNK))
        many = len(first) > MANY // CHUNK
        threads = self._threads or (self._started() if many else None)
        waiting, ended = deque[tuple[list[Row], Future[Encoded | None] | None]](), None
        for chunk, error in chain(first, chunks):
            ended = error
            waiting.append((chunk, threads.submit(self._ask, task, chunk) if threads else None))
            if len(waiting) > AHEAD * self._count:
                yield made(*waiting.popleft())
        while waiting:
            yield made(*waiting.popleft())
        if ended:
            raise ended

    def _started(self) -> ThreadPoolExecutor:
        """A thread for each worker."""
        tokenizer, pairs = self._tokenizer, [socketpair() for _ in range(self._count)]
        tokenizer.save(Path(self._files.name))
        begin: dict[str, Any] = {"folder": self._files.name, "fingerprint": tokenizer.fingerprint()}
        if type(tokenizer) is FastTokenizer:
            begin["facts"] = tokenizer.facts()._asdict()
        self._process = _start([theirs for _, theirs in pairs], begin)
        self._streams = [stream_of(ours) for ours, _ in pairs]
        streams = iter(self._streams)
        self._threads = ThreadPoolExecutor(self._count, "tokenize", lambda: self._wait_until_ready(next(streams)))
        return self._threads

    def _wait_until_ready(self, stream: BufferedIOBase) -> None:
        """The beginning of a thread: its worker has a tokenizer, or is none."""
        answer = _answer(stream)
        self._mine.stream = stream if answer and answer["why"] is None else None
        with self._lock:
            self._files.cleanup()  # read, or never will be; nothing stays of a run that is killed later
            tells, self._tells = self._tells and self._mine.stream is None, False
        if tells:
            why = answer["why"] if answer else f"exit status {self._status()}"
            print(f"ptsdk: the processes that were to tokenize rows do not: {why}", file=sys.stderr)

    def _ask(self, task: dict[str, Any], chunk: list[Row]) -> Encoded | None:
        """The examples of ``chunk`` by this thread's worker; None where it cannot make them."""
        stream: BufferedIOBase | None = self._mine.stream
        question = packed({**task, "rows": [[row.values, row.place, row.fault] for row in chunk]})
        if stream is None or question is None:
            return None
        with suppress(ConnectionError):  # nobody will answer either
            send(stream, question)
        answer = _answer(stream)
        arrays = answer and "failed" not in answer and receive(stream)
        if answer is None or arrays is None:
            raise RunError(f"a process that tokenizes rows ended (exit status {self._status()})")
        return from_columns(load(arrays), answer) if arrays else None

    def _status(self) -> int:
        assert self._process
        return self._process.wait()


def _start(ends: list[socket], begin: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A process whose children will answer at ``ends``; they are its own from now on."""
    numbers = [end.fileno() for end in ends]
    tunables = ":".join(filter(None, (TUNABLES, os.environ.get("GLIBC_TUNABLES"))))
    path = os.pathsep.join(filter(None, sys.path))
    # -P: the working directory is no place to import from, unless it is one for this process too.
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", f"from ptsdk.data.worker import serve; serve(*{numbers})"],
        stdin=subprocess.PIPE,
        pass_fds=numbers,
        start_new_session=True,
        env={**os.environ, **ENVIRONMENT, "GLIBC_TUNABLES": tunables, "PYTHONPATH": path},
    )
    for end in ends:
        end.close()
    assert process.stdin
    with suppress(BrokenPipeError), process.stdin as stdin:  # one that has ended is noticed by who asks it
        stdin.write(packed(begin) or b"")
    return process


def _answer(stream: BufferedIOBase) -> dict[str, Any] | None:
    """None from a worker that has died."""
    answer = receive(stream)
    return None if answer is None else unpacked(answer)


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
