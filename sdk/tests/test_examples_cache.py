from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ptsdk.checkpoint import examples
from ptsdk.checkpoint.cache import cache_dir
from ptsdk.checkpoint.examples import kept
from ptsdk.checkpoint.files import verify_manifest
from ptsdk.data.pipeline import Encoded, encode_dataset
from ptsdk.data.report import Tally
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.errors import UserError
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train import reading
from ptsdk.train.reading import key_of, read_data, rules_of

LOCAL = """
from ptsdk.builtin.datasets import Text

class Mine(Text):
    pass
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("PTSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "FEW", 10)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": "ab" * (1 + i % 9)}) + "\n" for i in range(40)))
    (tmp_path / "local.py").write_text(LOCAL)
    return tmp_path


def job_of(folder: Path, use: str = "text", **data: Any) -> Any:
    train = {"use": use, "path": data.pop("path", "rows.jsonl"), **data.pop("options", {})}
    job = {
        "api": 1, "model": {"use": "tiny", "config": {"hidden_size": 8}}, "tokenizer": "bytes", "method": "sft",
        "output_dir": "run",
        "data": {"train": train, "max_length": 10, **data},
    }  # fmt: skip
    (folder / "job.yaml").write_text(json.dumps(job))
    return load_job(folder / "job.yaml", (), Registry(scan()))


def read(job: Any, tokenizer: Any = None) -> Any:
    return read_data(job, job.data.train, tokenizer or ByteTokenizer())


def key(job: Any, tokenizer: Any = None) -> str:
    return key_of(job, job.data.train[0], tokenizer or ByteTokenizer(), rules_of(job))


def entries() -> list[Path]:
    return sorted(path for path in (cache_dir() / "examples").glob("*") if path.is_dir())


def test_rows_are_made_into_examples_once(here: Path, monkeypatch):
    job = job_of(here)
    first = read(job)
    assert len(entries()) == 1
    monkeypatch.setattr(reading.Processes, "encode", lambda *_: pytest.fail("made again"))
    second = read(job)
    assert second.report == first.report
    assert [second.store[i] for i in range(40)] == [first.store[i] for i in range(40)]
    assert [second.store.place(i) for i in range(40)] == [f"{here}/rows.jsonl:{i + 1}" for i in range(40)]


def test_few_rows_are_not_kept(here: Path):
    assert read(job_of(here, options={"limit": 10})).report.rows == 10
    assert entries() == []


def test_a_template_that_asks_the_clock_is_not_kept(here: Path):
    read(job_of(here), ByteTokenizer("{{ strftime_now('%Y') }}"))
    assert entries() == []


def test_all_that_decides_examples_is_part_of_the_key(here: Path):
    known = {key(job_of(here))}

    def new(job: Any, tokenizer: Any = None) -> None:
        assert key(job, tokenizer) not in known
        known.add(key(job, tokenizer))

    new(job_of(here, max_length=11))
    new(job_of(here, on_long_row="drop"))
    new(job_of(here, on_bad_row="skip"))
    new(job_of(here, options={"limit": 20}))
    new(job_of(here), ByteTokenizer("{{ messages }}"))
    (here / "rows.jsonl").rename(here / "moved.jsonl")
    new(job_of(here, path="moved.jsonl"))  # what is told of a row is where it lies
    with (here / "moved.jsonl").open("a") as file:
        file.write('{"text": "more"}\n')
    new(job_of(here, path="moved.jsonl"))
    new(job_of(here, "./local.py:Mine", path="moved.jsonl"))
    (here / "local.py").write_text(LOCAL + "# changed")
    new(job_of(here, "./local.py:Mine", path="moved.jsonl"))
    assert key(job_of(here, path="moved.jsonl")) in known  # and nothing else is


def test_other_code_is_another_key(here: Path, monkeypatch):
    before = key(job_of(here))
    monkeypatch.setattr(reading, "source_digest", lambda module: f"another {module}")
    assert key(job_of(here)) != before


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "manifest"])
def test_a_damaged_entry_is_made_anew(here: Path, damage: str):
    job = job_of(here)
    first = read(job)
    [entry] = entries()
    file = entry / ("manifest.json" if damage == "manifest" else examples.COLUMNS)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    match damage:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(content[:-5])
        case _:
            file.write_bytes(content)
    assert [*read(job).store] == [*first.store]
    assert verify_manifest(entry) == []
    assert [*examples.read(entry).store] == [*first.store]


def test_faults_are_not_kept(here: Path):
    with (here / "rows.jsonl").open("a") as file:
        file.write("{broken\n")
    for _ in range(2):
        with pytest.raises(UserError, match=r"rows\.jsonl:41: not JSON"):
            read(job_of(here))
    assert entries() == []


def test_what_changes_while_it_is_read_is_not_kept(here: Path, monkeypatch):
    encode = reading.Processes.encode

    def while_it_changes(self: Any, *given: Any) -> Any:
        (here / "rows.jsonl").write_text((here / "rows.jsonl").read_text() + '{"text": "late"}\n')
        return encode(self, *given)

    monkeypatch.setattr(reading.Processes, "encode", while_it_changes)
    read(job_of(here))
    assert entries() == []


def test_a_cache_that_cannot_be_written_costs_nothing_else(here: Path, monkeypatch):
    (here / "file").write_text("")
    monkeypatch.setenv("PTSDK_CACHE", str(here / "file"))
    assert read(job_of(here)).report.rows == 40


def test_what_a_killed_process_left_is_taken_away(here: Path):
    folder = cache_dir() / "examples"
    for name in ("one", "other"):
        (folder / f".{name}.0123.partial").mkdir(parents=True)
    made = read(job_of(here))
    kept(lambda: "one", lambda: Encoded(made.store, Tally()))
    assert [path.name for path in folder.glob(".*")] == [".other.0123.partial"]


def test_two_processes_do_not_do_the_same_work(here: Path):
    """The second waits for the first, and reads what it has made."""
    job, log = job_of(here), here / "log"
    children = []
    for _ in range(3):
        if not (pid := os.fork()):

            def make() -> Any:
                with log.open("a") as file:
                    file.write("made\n")
                return encode_dataset(job.data.train[0], ByteTokenizer(), job.base, rules_of(job))

            code = 1
            try:
                code = int(len(kept(lambda: "key", make).store) != 40)
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert log.read_text() == "made\n"
