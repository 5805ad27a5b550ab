from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptsdk._importing import import_file
from ptsdk.builtin.datasets import Chat, Instruct, Prompts
from ptsdk.contracts.dataset import Dataset
from ptsdk.data import processes
from ptsdk.data.columns import to_columns
from ptsdk.data.example import Row
from ptsdk.data.frames import packed, unpacked
from ptsdk.data.pipeline import Encoded, Rules, encode_dataset
from ptsdk.data.processes import Processes
from ptsdk.data.spelling import built, spelled
from ptsdk.data.tokenizers import ByteTokenizer, FastTokenizer
from ptsdk.errors import RunError, UserError

HERE = Path()
RULES = Rules(24, "truncate", "skip")
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}"
LOCAL = '''
import os
import signal
from datetime import date
from ptsdk.builtin.datasets import Text
from ptsdk.data.example import Example, Row

class Dated(Text):
    """Rows that JSON cannot hold, now and then one that is not there, and a bug."""
    bug: int = -1
    fatal: bool = False

    def rows(self, base):
        for i, row in enumerate(super().rows(base)):
            yield Row({**row.values, "at": date(2020, 1, 1)} if i == 100 else row.values, row.place)

    def encode(self, row, tokenizer):
        if row.place.endswith(f":{self.bug}"):
            if self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ZeroDivisionError("a bug")
        return Example(super().encode(row, tokenizer).documents, {"kind": str(type(row.values.get("at")))})
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of uneven rows, of which some are malformed, long or empty."""
    folder = tmp_path_factory.mktemp("rows")
    for name, start in (("a", 0), ("b", 150)):
        lines = []
        for i in range(start, start + 150):
            row: dict[str, Any] = {
                "prompt": "p" * (1 + i % 7),
                "completion": "c" * (1 + i % 30),
                "n": [i, 0.1 * i, None],
            }
            lines.append("{broken" if i % 41 == 3 else json.dumps({**row, "prompt": 3} if i % 37 == 5 else row))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": "t" * (2 + i % 9)}) + "\n" for i in range(200)))
    (folder / "local.py").write_text(LOCAL)
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> Iterator[Processes]:
    """Two workers that are ready."""
    with ready(ByteTokenizer(TEMPLATE)) as workers:
        yield workers


def ready(tokenizer: Any) -> Processes:
    workers = Processes(tokenizer, 2)
    both, threads = threading.Barrier(2), workers._started()
    for waited in [threads.submit(both.wait) for _ in range(2)]:
        waited.result()
    assert not Path(workers._files.name).exists()  # what they read is not left to a run that is killed
    return workers


def assert_same(one: Encoded, other: Encoded) -> None:
    (arrays, notes), (others, other_notes) = to_columns(one), to_columns(other)
    assert notes == other_notes
    for name, array in arrays.items():
        assert array.dtype == others[name].dtype
        np.testing.assert_array_equal(array, others[name])


@pytest.mark.parametrize("kind", [Instruct, Prompts])
@pytest.mark.parametrize("long", ["truncate", "drop"])
def test_workers_make_what_one_process_makes(two: Processes, folder: Path, monkeypatch, kind, long):
    dataset = kind(path=str(folder / "[ab].jsonl"))
    rules = Rules(24, long, "skip", "policy" if kind is Prompts else "token")
    alone = encode_dataset(dataset, ByteTokenizer(TEMPLATE), HERE, rules)
    assert alone.tally.dropped and len(alone.store.files) == 2
    # nothing is made here: the workers are ready before the first row
    monkeypatch.setattr(processes, "encode_rows", None)
    monkeypatch.setattr(processes.Future, "cancel", lambda self: False)
    assert_same(two.encode(dataset, dataset.rows(HERE), rules), alone)


def test_one_worker_or_the_first_rows_make_no_difference(folder: Path, monkeypatch):
    dataset = Instruct(path=str(folder / "a.jsonl"))
    alone = encode_dataset(dataset, ByteTokenizer(TEMPLATE), HERE, RULES)
    for count, many, started in ((1, 64, False), (2, 64, True), (2, 128, True), (2, 192, False)):
        monkeypatch.setattr(processes, "MANY", many)
        with Processes(ByteTokenizer(TEMPLATE), count) as fresh:  # not ready: rows are made here
            assert_same(fresh.encode(dataset, dataset.rows(HERE), RULES), alone)
            assert bool(fresh._process) == started


def test_workers_are_children_of_a_process_that_has_the_tokenizer(two: Processes):
    assert two._process is not None
    children = Path(f"/proc/{two._process.pid}/task/{two._process.pid}/children")
    if children.exists():
        assert len(children.read_text().split()) == 2
    assert os.getpgid(two._process.pid) == two._process.pid  # they end together


def test_workers_end_with_the_process_that_asks(folder: Path):
    script = f"""
import os, sys, threading
from ptsdk.data.processes import Processes
from ptsdk.data.tokenizers import ByteTokenizer, FastTokenizer
workers = Processes(ByteTokenizer({TEMPLATE!r}), 2)
both, threads = threading.Barrier(2), workers._started()
for waited in [threads.submit(both.wait) for _ in range(2)]:
    waited.result()
print(workers._process.pid, flush=True)
sys.stdin.read()
os._exit(0)
"""
    asking = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert asking.stdin and asking.stdout
    group = int(asking.stdout.readline())
    os.killpg(group, 0)  # they are there
    asking.send_signal(signal.SIGKILL)
    asking.communicate()
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        threading.Event().wait(0.05)
    pytest.fail("the workers went on without anybody to ask them")


class Shouting(FastTokenizer):
    """Of a plugin: what it does is in no file."""

    def encode_with_offsets(self, text: str, *, special: bool = False) -> Any:
        return super().encode_with_offsets(text.upper(), special=special)


def test_a_tokenizer_of_a_plugin_works_here_alone(folder: Path, monkeypatch):
    monkeypatch.setattr(processes, "MANY", 64)
    dataset = Instruct(path=str(folder / "a.jsonl"))
    own = Shouting(ByteTokenizer()._backend, {}, TEMPLATE)
    alone = encode_dataset(dataset, own, HERE, RULES)
    with Processes(own, 2) as workers:
        assert_same(workers.encode(dataset, dataset.rows(HERE), RULES), alone)
        assert workers._process is None


def test_a_template_that_was_assigned_is_that_of_the_workers(folder: Path, monkeypatch):
    monkeypatch.setattr(processes, "encode_rows", None)
    monkeypatch.setattr(processes.Future, "cancel", lambda self: False)
    dataset = Instruct(path=str(folder / "text.jsonl"), columns={"prompt": "text", "completion": "text"})
    tokenizer, before = ByteTokenizer(TEMPLATE), ByteTokenizer(TEMPLATE).fingerprint()
    assert tokenizer.fingerprint() == before
    tokenizer.chat_template = TEMPLATE.replace("<eos>", "<bos>")
    assert tokenizer.fingerprint() != before
    alone = encode_dataset(dataset, tokenizer, HERE, RULES)
    assert 256 in alone.store.tokens and 257 not in alone.store.tokens
    with ready(tokenizer) as workers:
        assert_same(workers.encode(dataset, dataset.rows(HERE), RULES), alone)


def test_rows_are_made_here_where_the_workers_have_no_tokenizer(folder: Path, capsys, monkeypatch):
    monkeypatch.setattr(processes, "MANY", 64)
    dataset = Instruct(path=str(folder / "a.jsonl"))
    alone = encode_dataset(dataset, ByteTokenizer(TEMPLATE), HERE, RULES)
    other = ByteTokenizer(TEMPLATE)
    monkeypatch.setattr(other, "fingerprint", lambda: "another")
    with ready(other) as workers:
        assert_same(workers.encode(dataset, dataset.rows(HERE), RULES), alone)
    assert capsys.readouterr().err.count("tokenize rows do not: the tokenizer is not the same") == 1
    monkeypatch.setattr(sys, "executable", "false")
    with ready(ByteTokenizer(TEMPLATE)) as workers:
        assert_same(workers.encode(dataset, dataset.rows(HERE), RULES), alone)
    assert capsys.readouterr().err.count("tokenize rows do not: exit status 1") == 1


def test_only_plain_values_are_packed():
    class Text(str):
        pass

    plain = {"a": [1, 10**400, -0.0, None, True, "é\ud800", [2], {"": {}}]}
    assert repr(unpacked(packed(plain) or b"")) == repr(plain)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    others = (b"bytes", (1, 2), {3}, {4: 5}, 10**5000)
    for value in (Text("a"), date(2020, 1, 1), deep, object(), np.float64(1), *others):
        assert packed({"rows": [value]}) is None


@pytest.mark.parametrize(("bad", "long"), [("error", "truncate"), ("skip", "error"), ("error", "error")])
def test_faults_are_told_alike(two: Processes, folder: Path, bad, long):
    dataset = Instruct(path=str(folder / "[ab].jsonl"))
    rules = Rules(24, long, bad)
    alone = encode_dataset(dataset, ByteTokenizer(TEMPLATE), HERE, rules)
    assert alone.problems
    assert two.encode(dataset, dataset.rows(HERE), rules).problems == alone.problems


class Breaking(Instruct):
    """A file that ends in the middle."""

    after: int

    def rows(self, base: Path) -> Iterator[Row]:
        for i, row in enumerate(super().rows(base)):
            if i == self.after:
                raise UserError("cut off")
            yield row


def test_what_ends_the_reading_comes_after_the_rows_before_it(folder: Path):
    dataset = Breaking(path=str(folder / "a.jsonl"), after=100)
    for rules in (Rules(24, "truncate", "skip"), Rules(4, "error", "skip")):
        outcomes = []
        for count in (1, 2):
            with Processes(ByteTokenizer(TEMPLATE), count) as workers:
                try:
                    outcomes.append(workers.encode(dataset, dataset.rows(HERE), rules).problems)
                except UserError as error:
                    outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
        assert (outcomes[0] == "cut off") == (rules.max_length == 24)


def test_what_a_worker_cannot_do_is_done_here(two: Processes, folder: Path):
    local: Any = import_file("local.py:Dated", folder)[0]
    dataset = local(path=str(folder / "text.jsonl"))
    alone = encode_dataset(dataset, ByteTokenizer(TEMPLATE), HERE, RULES)
    assert "datetime.date" in alone.store[100].extras["kind"]
    assert_same(two.encode(dataset, dataset.rows(HERE), RULES), alone)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        two.encode(local(path=dataset.path, bug=150), dataset.rows(HERE), RULES)
    with pytest.raises(UserError, match="no chat template"), ready(ByteTokenizer()) as plain:
        rows = [Row({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})]
        plain.encode(Chat(path="x.jsonl"), rows * 99, RULES)


def test_a_worker_that_dies_ends_the_run(folder: Path, monkeypatch):
    monkeypatch.setattr(processes.Future, "cancel", lambda self: False)
    dataset = Instruct(path=str(folder / "a.jsonl"))
    with ready(ByteTokenizer(TEMPLATE)) as workers:
        assert workers._process
        os.killpg(workers._process.pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"tokenizes rows ended \(exit status -9\)"):
            workers.encode(dataset, dataset.rows(HERE), RULES)


def test_one_worker_that_dies_ends_the_run(folder: Path, monkeypatch):
    monkeypatch.setattr(processes.Future, "cancel", lambda self: False)
    local: Any = import_file("local.py:Dated", folder)[0]
    dataset = local(path=str(folder / "text.jsonl"), bug=20, fatal=True)
    # made by a worker, as all is where one is ready
    monkeypatch.setattr(processes, "encode_rows", None)
    with (
        ready(ByteTokenizer(TEMPLATE)) as workers,
        pytest.raises(RunError, match=r"tokenizes rows ended \(exit status 137\)"),
    ):
        workers.encode(dataset, dataset.rows(HERE), RULES)


def test_a_data_set_is_spelled_only_where_it_comes_out_the_same(folder: Path):
    local: Any = import_file("local.py:Dated", folder)[0]
    for dataset in (Instruct(path="a.jsonl", limit=3), local(path="b.jsonl", bug=2)):
        words = spelled(dataset)
        assert words is not None
        assert built(**json.loads(json.dumps(words))) == dataset
    (folder / "other.py").write_text(LOCAL)
    words = spelled(import_file("other.py:Dated", folder)[0](path="b.jsonl"))
    (folder / "other.py").write_text(LOCAL + "\n")
    with pytest.raises(ImportError, match="changed"):
        built(**words)

    class Here(Dataset):
        def rows(self, base: Path) -> Iterator[Row]:
            yield Row({})

        def encode(self, row: Row, tokenizer: Any) -> Any: ...

    assert spelled(Here()) is None
