from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptsdk.builtin.datasets import Instruct, Text
from ptsdk.contracts.dataset import Dataset
from ptsdk.contracts.run import Progress
from ptsdk.data import stream_order
from ptsdk.data.example import Example, Row
from ptsdk.data.lines import JsonLines
from ptsdk.data.order import Cut, SamplePlan
from ptsdk.data.pipeline import Rules
from ptsdk.data.rows import DataFile, locate_lines, read
from ptsdk.data.stream import Stream
from ptsdk.data.stream_order import StreamPlan
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.errors import RunError, UserError

HERE = Path()
RULES = Rules(16, "truncate", "skip")
COUNTS = (50, 30)


@pytest.fixture(autouse=True)
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_order, "WINDOW", 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, count in enumerate(COUNTS):
        rows = [json.dumps({"text": "ab" * (1 + (i * 7 + number) % 8)}) for i in range(count)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def stream_of(folder: Path, rules: Rules = RULES, bad: tuple[int, ...] = ()) -> Stream:
    """Two sets; rows of the first are spoiled."""
    if bad:
        lines = (folder / "0.jsonl").read_text().splitlines()
        (folder / "0.jsonl").write_text("\n".join("{" if i in bad else line for i, line in enumerate(lines)))
    datasets = [Text(path=str(folder / f"{number}.jsonl")) for number in range(2)]
    return Stream(datasets, [dataset.by_number(HERE) for dataset in datasets], ByteTokenizer(), rules)


def options_of(**options: Any) -> dict[str, Any]:
    defaults = {"weights": [None, None], "seed": 5, "shuffle": True, "packing": False, "capacity": 16, "batch_size": 4}
    return {"cut": Cut(2), "steps": 30, **defaults, **options}


def plan_of(stream: Stream, **options: Any) -> StreamPlan:
    return StreamPlan(stream, **options_of(**options))


def flat(step: list[list[int]]) -> list[int]:
    return [row for micro_batch in step for row in micro_batch]


def test_rows_by_number_are_the_rows_in_order(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(
        b'\xef\xbb\xbf{"x": 1}\n\n{"x": 2}\r\n  \n{broken\n{"x": "\xc3\xa4"}\n[1]\n\xff\n\n{"x": 3}'
    )
    (tmp_path / "b.ndjson").write_text("")
    (tmp_path / "c.jsonl").write_text('\n{"x": 4}\n')
    for limit in (None, 3, 100):
        files = locate_lines(str(tmp_path), HERE)
        expected = list(read(str(tmp_path), HERE))[:limit]
        assert [*JsonLines(files, limit)] == expected
    assert JsonLines(files)[-1] == Row({"x": 4}, f"{tmp_path}/c.jsonl:2")
    renamed = Text(path=str(tmp_path / "a.jsonl"), columns={"text": "x"}, limit=2)
    assert [*renamed.by_number(HERE)] == [*renamed.rows(HERE)]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.csv", "convert"),
        ("a.json", "convert"),
        ("a.parquet", "convert"),
        ("a.jsonl.gz", "convert"),
        ("a.tsv", "JSONL"),
    ],
)
def test_what_cannot_be_read_by_number_is_refused(tmp_path: Path, name: str, hint: str):
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=f"(?s){name}:1: streaming reads local JSONL files.*{hint}"):
        Text(path=str(tmp_path / name)).by_number(HERE)


def test_data_sets_of_the_hub_and_of_plugins_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="is a data set of the hub"):
        Text(path="hf://datasets/org/name").by_number(HERE)
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UserError, match="copy the file to this machine"):
        Text(path=f"file://{tmp_path}/a.jsonl").by_number(HERE)

    class Filtering(Text):
        def rows(self, base: Path) -> Iterator[Row]:
            yield from list(super().rows(base))[::2]

    with pytest.raises(UserError, match="Filtering reads its rows in order alone"):
        Filtering(path=str(tmp_path / "a.jsonl")).by_number(HERE)

    class Own(Dataset):
        def rows(self, base: Path) -> Iterator[Row]:
            yield Row({})

        def encode(self, row: Row, tokenizer: Any) -> Example: ...

    with pytest.raises(UserError, match="Own reads its rows in order alone"):
        Own().by_number(HERE)


def test_a_file_that_shrinks_ends_the_run(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "abc"}\n' * 9)
    rows = JsonLines([DataFile(str(path), str(path))])
    path.write_text('{"text": "abc"}\n' * 3)
    assert rows[2].values == {"text": "abc"}
    with pytest.raises(RunError, match=r"a\.jsonl has become shorter"):
        rows[8]


@pytest.mark.parametrize("weights", [[None, None], [0.7, 0.3]])
@pytest.mark.parametrize("cut", [Cut(2), Cut(tokens=20)])
def test_without_packing_the_order_is_that_of_data_in_memory(folder: Path, weights, cut):
    stream = stream_of(folder)
    options = options_of(weights=weights, cut=cut, steps=50)
    lengths = [stream[i].length for i in range(sum(COUNTS))]
    known = SamplePlan(lengths=np.array(lengths), sizes=COUNTS, **options)
    streamed = StreamPlan(stream, **options)
    assert streamed.total_steps == known.total_steps == 50
    progress, expected = Progress(), Progress()
    for one, other in islice(zip(streamed.steps(progress), known.steps(expected), strict=True), 50):
        assert one == other
        assert (progress.epoch, progress.offset) == (expected.epoch, expected.offset)
        assert streamed.epochs_done(progress) == known.epochs_done(expected)


@pytest.mark.parametrize("shuffle", [True, False])
def test_packs_hold_every_row_of_an_epoch_once(folder: Path, shuffle):
    stream = stream_of(folder, bad=(3, 20, 21))
    made = plan_of(stream, packing=True, shuffle=shuffle)
    epochs = [made.items(epoch) for epoch in range(2)]
    usable = {*range(sum(COUNTS))} - {3, 20, 21}
    for packs in epochs:
        assert Counter(row for pack in packs for row in pack) == dict.fromkeys(usable, 1)
        assert all(sum(stream[row].length for row in pack) <= 16 for pack in packs)
        assert len(packs) < 60
    assert (epochs[0] == epochs[1]) == (not shuffle)
    steps = [row for step in islice(made.steps(Progress()), 18) for row in flat(step)]  # none is lost between them
    assert steps == [row for packs in epochs for pack in packs for row in pack][: len(steps)]
    assert len(steps) > len(usable)
    if not shuffle:
        firsts = [min(pack) for pack in epochs[0][:8]]
        assert firsts == sorted(firsts)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("weights", [[None, None], [1.0, 4.0]])
def test_any_cursor_resumes_at_any_world_size(folder: Path, packing, weights):
    options = {"packing": packing, "weights": weights}
    stream = stream_of(folder, bad=(0, 7, 30, 31))
    progress, cursors, steps = Progress(), [(0, 0)], []
    for step in islice(plan_of(stream, **options).steps(progress), 30):
        steps.append(flat(step))
        cursors.append((progress.epoch, progress.offset))
    assert progress.epoch >= 1
    for at in (0, 1, 4, 11, 17, 25):
        for world in (1, 2, 3):
            ranks = [plan_of(stream_of(folder), **options, rank=r, world_size=world) for r in range(world)]
            epoch, offset = cursors[at]
            shares = [islice(plan.steps(Progress(epoch=epoch, offset=offset)), 4) for plan in ranks]
            for expected, of_ranks in zip(steps[at:], zip(*shares, strict=True), strict=False):
                assert [row for own in of_ranks for row in flat(own)] == expected
                assert len({len(own) for own in of_ranks}) == 1
            assert ranks[0].continues(Progress(epoch=epoch, offset=offset))


def test_examples_are_those_of_the_rules_and_know_their_place(folder: Path):
    stream = stream_of(folder, Rules(6, "truncate", "skip"), bad=(1,))
    assert stream.load([0, 1, 2, 51]) == [0, 2, 51]
    assert [stream.length(row) for row in (0, 2, 51)] == [2, 6, 2]
    assert stream.place(51) == f"{folder}/1.jsonl:2"
    assert stream[1] == stream[0]  # stands in for a filler
    assert stream[2:4] == [stream[2], stream[3]]


def test_what_is_left_out_is_told_and_counted_once(folder: Path, capsys):
    stream = stream_of(folder, Rules(8, "drop", "skip"), bad=(4, 9))
    met = Counter(row for step in islice(stream_steps(stream), 30) for row in flat(step))
    assert {3} <= {*met.values()} <= {3, 4}  # each of 39 rows, 120 times together
    err = capsys.readouterr().err
    assert err.count("left out") == 2
    assert f"{folder}/0.jsonl:5: not JSON" in err or f"{folder}/0.jsonl:10: not JSON" in err
    dropped = {reason: count.count for reason, count in stream.tally.dropped.items()}
    lines = [line for n in range(2) for line in (folder / f"{n}.jsonl").read_text().splitlines() if line != "{"]
    long = sum(len(json.loads(line)["text"]) > 8 for line in lines)
    assert dropped == {"malformed": 2, "longer than max_length": long}
    assert stream.tally.rows == sum(COUNTS)
    assert stream.told().startswith(f"of {sum(COUNTS)} rows that were read, left out: ")


def stream_steps(stream: Stream, **options: Any) -> Iterator[list[list[int]]]:
    return plan_of(stream, **options).steps(Progress())


def test_a_bad_row_ends_the_run_when_it_is_met(folder: Path):
    stream = stream_of(folder, Rules(16, "truncate", "error"), bad=(40,))
    with pytest.raises(UserError, match=r"0\.jsonl:41: not JSON"):
        list(islice(stream_steps(stream), 20))


@pytest.mark.parametrize("packing", [False, True])
def test_rows_that_are_left_out_are_passed_over(folder: Path, packing):
    stream = stream_of(folder, bad=tuple(range(4, 40)))
    steps = list(islice(stream_steps(stream, shuffle=False, packing=packing), 8))
    if not packing:
        assert flat(steps[0]) == [0, 1, 2, 3]
        assert [flat(step) for step in steps[1:3]] == [[40, 41, 42, 43], [44, 45, 46, 47]]
    assert all(len(step) == 2 for step in steps)


def test_an_epoch_without_any_row_to_use_ends_the_run(folder: Path):
    stream = stream_of(folder)
    stream.load = lambda rows: []  # type: ignore[method-assign]
    for packing in (False, True):
        with pytest.raises(UserError, match="no row of an epoch can be used"):
            next(stream_steps(stream, packing=packing))


def test_a_set_without_any_row_to_use_is_refused_at_once(folder: Path):
    with pytest.raises(UserError, match="none of the 50 rows of the data set can be used: 50 malformed"):
        stream_of(folder, bad=tuple(range(50)))
    (folder / "0.jsonl").write_text("\n")
    with pytest.raises(UserError, match="the data set has no rows"):
        stream_of(folder)


def test_ids_that_the_model_lacks_are_refused(folder: Path):
    stream = stream_of(folder)
    stream.vocab_size = ord("b")
    with pytest.raises(UserError, match=r"0\.jsonl:3: token id 98, but the model's vocabulary has 98 ids"):
        stream.load([2])


def test_memory_does_not_grow_with_the_data(tmp_path: Path):
    peaks = []
    for count in (200, 1000):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(json.dumps({"prompt": "p", "completion": "c" * 500}) + "\n" for _ in range(count)))
        dataset = Instruct(path=str(path))
        tracemalloc.start()
        stream = Stream([dataset], [dataset.by_number(HERE)], ByteTokenizer(), Rules(2000))
        made = StreamPlan(stream, **options_of(weights=[None], packing=True, capacity=2000, steps=count // 20))
        for step in islice(made.steps(Progress()), count // 20):
            assert [stream[row] for row in flat(step)]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
