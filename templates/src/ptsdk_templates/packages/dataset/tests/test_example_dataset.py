"""Which tokens a row becomes, and which of them carry loss."""

from __future__ import annotations

import pytest
from ptsdk.data.example import BadRow, Row
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.testing import DatasetSuite

from ptsdk_example_dataset.dataset import ExampleDataset


class TestConforms(DatasetSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-dataset/example-dataset"  # dist/name


DATA = ExampleDataset(path="train.jsonl", template="{question}? ")


def test_the_answer_and_its_end_carry_loss() -> None:
    tokenizer = ByteTokenizer()
    (document,) = DATA.encode(Row({"question": "one", "answer": "two"}), tokenizer).documents
    learned = [token for token, on in zip(document.tokens, document.supervised, strict=True) if on]
    assert tokenizer.decode(list(document.tokens), skip_special=False) == "one? two<eos>"
    assert tokenizer.decode(learned, skip_special=False) == "two<eos>"


@pytest.mark.parametrize("values", [{"question": "one"}, {"question": "one", "answer": 2}, {"answer": "two"}])
def test_a_row_without_text_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(BadRow, match="expected text in the column"):
        DATA.encode(Row(values), ByteTokenizer())
