"""Paragraphs of a small file."""

from __future__ import annotations

from pathlib import Path

import pytest
from ptsdk.errors import UserError

from ptsdk_example_dataset.dataset import ExampleDataset


def test_paragraphs_and_their_places(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("\none\ntwo\n\n\nthree", "utf-8")
    rows = list(ExampleDataset(path="book.txt").rows(tmp_path))
    assert [row.values["text"] for row in rows] == ["one\ntwo", "three"]
    assert [row.place.rpartition(":")[2] for row in rows] == ["2", "6"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: .*book\.txt"):
        ExampleDataset(path="book.txt").files(tmp_path)
