from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptsdk.contracts.dataset import Dataset
from ptsdk.data.example import BadRow, Document, Example, Row
from ptsdk.data.pipeline import check_vocabulary, encode, truncate
from ptsdk.data.report import describe_lengths
from ptsdk.data.store import ExampleStore, StoreBuilder, concat
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.errors import UserError

HERE = Path()


class Rows(Dataset):
    """Rows from a list; ``{prompt, answer}`` or ``{prompt, chosen, rejected}``, one token a byte."""

    name: str = "a.jsonl"
    given: tuple[dict[str, Any], ...]

    def rows(self, base: Path) -> Iterator[Row]:
        for number, values in enumerate(self.given, start=1):
            yield Row(values, f"{self.name}:{number}")

    def encode(self, row: Row, tokenizer: Any) -> Example:
        if "prompt" not in row.values:
            raise BadRow("no prompt")
        prompt = tokenizer.encode(row.values["prompt"])
        answers = [tokenizer.encode(row.values[key]) for key in ("answer", "chosen", "rejected") if key in row.values]
        return Example(tuple(document(prompt, answer) for answer in answers), row.values.get("extras", {}))


class Prompts(Rows):
    def encode(self, row: Row, tokenizer: Any) -> Example:
        return Example((document(tokenizer.encode(row.values["prompt"]), []),))


def document(prompt: list[int], answer: list[int]) -> Document:
    return Document((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))


def run(*rows: dict[str, Any], kind: type[Rows] = Rows, **options: Any) -> Any:
    return encode([kind(given=rows)], ByteTokenizer(), HERE, **{"max_length": 6, **options})


def pair(prompt: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "answer": answer, **more}


def texts(data: Any) -> list[list[str]]:
    return [["".join(map(chr, d.tokens)) for d in example.documents] for example in data.store]


def dropped(data: Any) -> dict[str, tuple[int, list[str]]]:
    return {entry["reason"]: (entry["count"], entry["places"]) for entry in data.report.as_dict()["dropped"]}


def test_rows_become_examples_with_their_place_and_extras():
    data = run(pair("ab", "c", extras={"label": True}), pair("", "def"))
    assert texts(data) == [["abc"], ["def"]]
    assert data.store[0].documents[0].supervised == (False, False, True)
    assert [example.extras for example in data.store] == [{"label": True}, {}]
    assert [data.store.place(i) for i in range(2)] == ["a.jsonl:1", "a.jsonl:2"]
    assert data.sizes == (2,)
    # the first token of a document is predicted by nothing, so it is not counted
    assert (data.report.tokens, data.report.supervised_tokens) == (6, 3)


def test_a_long_row_loses_its_end():
    data = run(pair("abcd", "efgh"), pair("ab", "cd"))
    assert texts(data) == [["abcdef"], ["abcd"]]
    assert dataclasses.asdict(data.report.truncated) == {"count": 1, "places": ["a.jsonl:1"]}
    assert data.report.lengths["max"] == 6


def test_a_row_whose_answer_was_cut_away_is_dropped():
    data = run(pair("abcdef", "gh"), pair("a", "b"))
    assert texts(data) == [["ab"]]
    assert dropped(data) == {"no supervised tokens left after truncation": (1, ["a.jsonl:1"])}
    assert data.report.truncated.count == 1


def test_long_rows_can_be_dropped():
    data = run(pair("abcd", "efgh"), pair("abcde", "f"), on_long_row="drop")
    assert texts(data) == [["abcdef"]]
    assert dropped(data) == {"longer than max_length": (1, ["a.jsonl:1"])}
    assert data.report.truncated.count == 0


def test_long_rows_can_be_refused():
    with pytest.raises(UserError) as caught:
        run(pair("abcd", "efgh"), pair("a", "b"), pair("abcdefg", "h"), on_long_row="error")
    assert [(p.file, p.line) for p in caught.value.problems] == [("a.jsonl", 1), ("a.jsonl", 3)]
    assert "8 tokens, more than data.max_length=6" in caught.value.problems[0].message


def test_each_side_of_a_preference_may_be_as_long_as_max_length():
    data = run({"prompt": "abc", "chosen": "def", "rejected": "g"}, objective="preference", on_long_row="error")
    assert texts(data) == [["abcdef", "abcg"]]
    assert data.store.lengths.tolist() == [10]


def test_a_cut_preference_keeps_the_common_prompt():
    data = run({"prompt": "abc", "chosen": "defgh", "rejected": "xyzw"}, objective="preference")
    assert texts(data) == [["abcdef", "abcxyz"]]


def test_a_preference_needs_loss_on_both_sides():
    rows = [{"prompt": "abc", "chosen": "d", "rejected": ""}, {"prompt": "abc", "chosen": "d", "rejected": "e"}]
    data = run(*rows, objective="preference")
    assert dropped(data) == {"no supervised tokens": (1, ["a.jsonl:1"])}


def test_rows_without_supervised_tokens_are_dropped():
    data = run(pair("abc", ""), pair("", "d"), pair("a", "b"), pair("abcdefgh", ""))
    assert dropped(data) == {"no supervised tokens": (3, ["a.jsonl:1", "a.jsonl:2", "a.jsonl:4"])}
    assert (data.report.rows, data.report.kept) == (4, 1)


def test_prompts_need_no_supervised_tokens_but_are_never_cut():
    rows = [pair("abc", ""), pair("", ""), pair("abcdefg", "")]
    data = run(*rows, kind=Prompts, objective="policy")
    assert texts(data) == [["abc"]]
    assert dropped(data) == {"empty prompt": (1, ["a.jsonl:2"]), "longer than max_length": (1, ["a.jsonl:3"])}


def test_bad_rows_are_errors_with_their_place():
    with pytest.raises(UserError) as caught:
        run(pair("a", "b"), {}, {}, on_bad_row="error")
    assert [(p.file, p.line, p.message) for p in caught.value.problems] == [
        ("a.jsonl", 2, "no prompt"),
        ("a.jsonl", 3, "no prompt"),
    ]
    assert "data.on_bad_row=skip" in caught.value.problems[0].hint


def test_only_the_first_bad_rows_are_told():
    with pytest.raises(UserError) as caught:
        run(*[{}] * 50)
    assert [p.line for p in caught.value.problems[:-1]] == list(range(1, 21))
    assert "and more" in caught.value.problems[-1].message


def test_bad_rows_can_be_skipped():
    data = run({}, pair("a", "b"), {}, on_bad_row="skip")
    assert dropped(data) == {"malformed": (2, ["a.jsonl:1: no prompt", "a.jsonl:3: no prompt"])}
    assert (data.report.rows, data.report.kept) == (3, 1)


def test_a_column_that_json_cannot_hold_makes_a_bad_row():
    with pytest.raises(UserError, match=r"a\.jsonl:1: a column that JSON cannot hold"):
        run(pair("a", "b", extras={"when": object()}))


def test_every_row_is_counted_once():
    rows = [pair("a", "b"), {}, pair("abc", ""), pair("abcdef", "g"), pair("abc", "defgh")]
    report = run(*rows, on_bad_row="skip").report
    assert report.rows == report.kept + sum(count.count for count in report.dropped.values()) == 5


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "Rows:1: the data set has no rows"),
        (
            [pair("ab", "")],
            r"Rows:1: none of the 1 rows of the data set can be used: 1 no supervised tokens \(first a.jsonl:1\)",
        ),
        ([{}], "none of the 1 rows of the data set can be used: 1 malformed"),
    ],
)
def test_a_data_set_that_gives_nothing_is_refused(rows, message):
    with pytest.raises(UserError, match=message):
        encode(
            [Rows(given=(pair("a", "b"),)), Rows(given=tuple(rows))],
            ByteTokenizer(),
            HERE,
            max_length=6,
            on_bad_row="skip",
        )


def test_several_data_sets_lie_one_after_the_other():
    sets = [
        Rows(name="a.jsonl", given=(pair("a", "b"), {}, pair("c", "d", extras={"n": 1}))),
        Rows(name="b.jsonl", given=({}, pair("e", "fg", extras={"n": 2}))),
    ]
    data = encode(sets, ByteTokenizer(), HERE, max_length=9, on_bad_row="skip")
    assert data.sizes == (2, 1)
    assert texts(data) == [["ab"], ["cd"], ["efg"]]
    assert [example.extras for example in data.store] == [{}, {"n": 1}, {"n": 2}]
    assert [data.store.place(i) for i in range(3)] == ["a.jsonl:1", "a.jsonl:3", "b.jsonl:2"]
    assert dropped(data) == {"malformed": (2, ["a.jsonl:2: no prompt", "b.jsonl:1: no prompt"])}
    assert data.report.rows == 5


def test_the_report_is_json():
    report = run(pair("a", "b"), pair("ab", "c"), {}, on_bad_row="skip").report
    described = json.loads(json.dumps(report.as_dict()))
    assert described["lengths"] == {
        "min": 2, "p5": 2, "p25": 2, "p50": 2, "p75": 3, "p95": 3, "p99": 3, "max": 3, "mean": 2.5
    }  # fmt: skip
    assert (described["tokens"], described["supervised_tokens"], described["packing"]) == (5, 2, None)
    assert describe_lengths(np.array([], dtype=np.int64)) == {}


def test_an_id_beyond_the_vocabulary_is_refused_with_its_row():
    store = run(pair("a", "b"), pair("ab", "z")).store
    check_vocabulary(store, ord("z") + 1)
    with pytest.raises(UserError, match=r"a\.jsonl:2: token id 122, but the model's vocabulary has 122 ids"):
        check_vocabulary(store, ord("z"))


def test_a_negative_id_is_refused():
    with pytest.raises(UserError, match=r"x:9: token id -1"):
        check_vocabulary(stored([[0, 1], [1, -1]], places=["x:4", "x:9"]), 10)


def stored(documents: list[list[int]], places: list[str] | None = None) -> ExampleStore:
    builder = StoreBuilder()
    for i, tokens in enumerate(documents):
        builder.append(Example((Document(tuple(tokens), (True,) * len(tokens)),)), places[i] if places else "")
    return builder.build()


def test_a_store_is_a_sequence_of_what_was_appended():
    examples = [
        Example((Document((1, 2), (False, True)), Document((), ())), {"a": [1, None]}),
        Example((Document((2**31 - 1,), (True,)),)),
    ]
    builder = StoreBuilder()
    for example in examples:
        builder.append(example, "file with : colon.jsonl:12")
    store = builder.build()
    assert list(store) == examples
    assert store[-1] == examples[-1]
    assert store[0:2] == examples
    assert store.supervised_tokens.tolist() == [1, 0]
    assert store.place(1) == "file with : colon.jsonl:12"
    with pytest.raises(IndexError):
        store[2]


def test_a_joined_store_holds_the_examples_of_all():
    stores = [
        stored([[1, 2], []], ["a:1", "a:2"]),
        stored([]),
        stored([[3], [4, 5, 6]], ["12", "a:9"]),
    ]
    joined = concat(stores)
    assert list(joined) == [example for store in stores for example in store]
    assert [joined.place(i) for i in range(4)] == ["a:1", "a:2", "12", "a:9"]
    assert joined.lengths.tolist() == [2, 0, 1, 3]
    assert [joined.example_of_token(i) for i in range(6)] == [0, 0, 2, 3, 3, 3]


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 tokens, but a mask of 1"):
        StoreBuilder().append(Example((Document((1, 2), (True,)),)))


def test_a_store_takes_about_five_bytes_a_token():
    store = stored([list(range(1000))] * 100, [f"data.jsonl:{i}" for i in range(1, 101)])
    columns = [getattr(store, f.name) for f in dataclasses.fields(store)]
    assert sum(c.nbytes for c in columns if isinstance(c, np.ndarray)) / len(store.tokens) < 5.1


def test_truncation_keeps_extras():
    assert truncate(Example((Document((1, 2), (True, True)),), {"label": 1}), 1).extras == {"label": 1}
