"""What a data set has to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ptsdk.contracts.component import record
from ptsdk.contracts.dataset import Dataset
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import BadRow, Example, Row
from ptsdk.data.pipeline import encode
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.errors import UserError
from ptsdk.testing.elsewhere import read_elsewhere, second_of_two
from ptsdk.testing.jobs import example_row, write_rows
from ptsdk.testing.suite import ComponentSuite

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
DOCUMENTS = {"token": 1, "binary": 1, "policy": 1, "preference": 2}
ROWS = 10


class DatasetSuite(ComponentSuite):
    """For the kind ``dataset``.

    Where the component has an option ``path``, the rows are written as JSONL and it is given the file.

    Attributes:
        rows: rows as it reads them; by default the component's ``example_rows``, else rows with the
            columns of every built-in data set.
        bad_row: one that it has to refuse.
    """

    kind: ClassVar[str] = "dataset"
    rows: ClassVar[Sequence[Mapping[str, Any]]] = ()
    bad_row: ClassVar[Mapping[str, Any]] = {"no_such_column_": [1]}

    def given(self) -> list[Mapping[str, Any]]:
        """The rows of the test."""
        given = self.rows or self.cls.example_rows
        return [given[i % len(given)] for i in range(ROWS)] if given else [example_row(i) for i in range(ROWS)]

    @property
    def reads_a_file(self) -> bool:
        """Whether it has an option ``path``."""
        return "path" in self.cls.model_fields

    def data(self, rows: Sequence[Mapping[str, Any]] | None = None, name: str = "rows.jsonl") -> Dataset:
        """The data set, of some rows in a file where it reads one."""
        if not self.reads_a_file:
            return self.make()  # type: ignore[no-any-return]
        path = write_rows(self.folder / name, list(self.given() if rows is None else rows))
        return self.make(path=str(path))  # type: ignore[no-any-return]

    def make(self, **options: Any) -> Any:
        """See ``Suite.make``; a path is given where one is needed."""
        if not self.reads_a_file or "path" in options:
            return super().make(**options)
        path = write_rows(self.folder / "made.jsonl", list(self.given()))
        return super().make(path=str(path), **options)

    @property
    def tokenizer(self) -> Tokenizer:
        """Bytes, with a chat template, so that text and messages both encode."""
        return ByteTokenizer(TEMPLATE)

    def examples(self, data: Dataset) -> list[Example]:
        """Every row, encoded."""
        try:
            return [data.encode(row, self.tokenizer) for row in data.rows(self.folder)]
        except BadRow as error:
            hint = (
                "" if self.rows or self.cls.example_rows else "; declare `example_rows` in it, or `rows` in the suite"
            )
            raise AssertionError(f"it refuses a row that it should read: {error}{hint}") from error

    def test_reads_the_same_every_time(self) -> None:
        """Rows, their order and their examples depend on the file alone: not on an order of sets, another in each
        process."""
        data = self.data()
        first, second = self.examples(data), self.examples(self.data())
        assert first, "there are no rows"
        assert first == second == self.examples(data), "read again, rows or their order are others"
        elsewhere = read_elsewhere(record(data), self.base, self.folder, self.tokenizer)
        assert [repr(example) for example in first] == elsewhere, (
            "a process with another hash seed reads other rows, or in another order: sort what comes from a set"
        )

    def test_rows_by_number_are_the_rows(self) -> None:
        """Where it can be streamed, as many rows, and each the one that is read in its turn."""
        data = self.data()
        try:
            by_number = data.by_number(self.folder)
        except UserError:
            return
        rows = list(data.rows(self.folder))
        assert len(by_number) == len(rows), "by number it has more rows or fewer than read in order"
        read = [by_number[i] for i in reversed(range(len(rows)))][::-1]
        assert read == rows, "read by its number, a row is another than read in order"

    def test_does_not_depend_on_the_world(self) -> None:
        """One of several processes reads the same rows: who learns from which is decided after reading."""
        alone = self.examples(self.data())
        with second_of_two():
            assert self.examples(self.data()) == alone, "another process of the run reads other rows"

    def test_encoding_a_row_is_pure(self) -> None:
        """A row's example depends on the row and the tokenizer, not on the rows before it; the row stays as it is."""
        data = self.data()
        rows = list(data.rows(self.folder))
        before = json.dumps([dict(row.values) for row in rows], default=str)
        forth = [data.encode(row, self.tokenizer) for row in rows]
        back = [data.encode(row, self.tokenizer) for row in reversed(rows)][::-1]
        assert forth == back, "an example depends on what was encoded before"
        assert json.dumps([dict(row.values) for row in rows], default=str) == before, "encode() has changed a row"

    def test_examples_fit_the_objective(self) -> None:
        """As many documents as the objective has, a mask a token, extras that JSON holds."""
        objective = self.spec.objective
        for example in self.examples(self.data()):
            count = len(example.documents)
            assert count == DOCUMENTS[objective], f"{count} documents; {objective} has {DOCUMENTS[objective]}"
            for document in example.documents:
                tokens, mask = len(document.tokens), len(document.supervised)
                assert tokens and tokens == mask, f"{tokens} tokens with a mask of {mask}"
                assert all(0 <= token < self.tokenizer.vocab_size for token in document.tokens), "an unknown token id"
            json.dumps(dict(example.extras))

    def test_something_is_supervised(self) -> None:
        """Of every document some token carries loss; of a prompt to be answered none does."""
        for example in self.examples(self.data()):
            for document in example.documents:
                any_loss = any(document.supervised[1:])
                if self.spec.objective == "policy":
                    assert not any_loss, "a prompt carries loss"
                else:
                    assert any_loss, "a document carries no loss"

    def test_bad_rows_are_named(self) -> None:
        """A malformed row is refused by ``BadRow`` and told with its ``file:line``."""
        if not self.reads_a_file:
            with pytest.raises(BadRow):
                self.data().encode(Row(self.bad_row, "rows:1"), self.tokenizer)
            return
        data = self.data([*self.given()[:2], self.bad_row], "bad.jsonl")
        with pytest.raises(UserError) as caught:
            encode([data], self.tokenizer, self.folder, max_length=4096, objective=self.spec.objective)
        problem = caught.value.problems[0]
        place = (Path(problem.file).name, problem.line)
        assert place == ("bad.jsonl", 3), f"the bad row in line 3 of bad.jsonl is told as {place}"

    def test_fingerprint_is_of_the_content(self) -> None:
        """The same for the same rows, another for others: the run's lock refuses to resume on other data."""
        first = self.data().fingerprint(self.folder)
        assert first and first == self.data().fingerprint(self.folder), "the fingerprint of the same rows differs"
        if self.reads_a_file:
            other = self.data(self.given()[:-1], "other.jsonl").fingerprint(self.folder)
            assert other != first, "other rows have the same fingerprint"
