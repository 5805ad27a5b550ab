"""The data set itself, imported when a job says ``train: {use: example-dataset, path: train.jsonl}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ptsdk.builtin.datasets import FileDataset
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import BadRow, Document, Example, Row
from pydantic import Field


class ExampleDataset(FileDataset):
    """``{question, answer}``: the answer and its end carry loss.

    Core's ``FileDataset`` reads the rows of JSONL, JSON, CSV or Parquet files and knows `path`, `columns`
    and `limit`. A data set that reads something else implements ``ptsdk.contracts.dataset.Dataset``.
    """

    template: str = Field("Q: {question}\nA: ", description="the text before the answer; {question} is filled in")
    example_rows: ClassVar[tuple[Mapping[str, Any], ...]] = ({"question": "What is 2 + 2?", "answer": "4"},)
    """Rows that conformance suites try it with."""

    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """A pure function of row and tokenizer: that is what makes a run repeatable.

        Raises:
            BadRow: a column is missing or is no text; the caller adds file and line.
        """
        prompt = tokenizer.encode(self.template.replace("{question}", text(row, "question")))
        answer = tokenizer.encode(text(row, "answer"), special=False)
        if tokenizer.eos_id is not None:
            answer.append(tokenizer.eos_id)
        # For each token whether predicting it carries loss. Labels are shifted later, once, for all data sets.
        return Example((Document((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer)),))


def text(row: Row, column: str) -> str:
    """The text in a column.

    Raises:
        BadRow: there is none.
    """
    value = row.values.get(column)
    if not isinstance(value, str) or not value:
        raise BadRow(f"expected text in the column `{column}`, found {value!r}")
    return value
