"""The data set itself, imported when a job says ``train: {use: example-dataset, path: book.txt}``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ptsdk.contracts.dataset import Dataset
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import BadRow, Document, Example, Row
from ptsdk.errors import UserError
from pydantic import Field


class ExampleDataset(Dataset):
    """Paragraphs of a text file, which an empty line ends; every token carries loss."""

    path: str = Field(description="a text file in UTF-8, relative to the job file")

    def files(self, base: Path) -> list[Path]:
        """What will be read. `ptsdk check` asks, so that a missing file is a fault of the job."""
        path = base / Path(self.path).expanduser()
        if not path.is_file():
            raise UserError(f"no such file: {path}", hint="paths are relative to the job file")
        return [path]

    def rows(self, base: Path) -> Iterator[Row]:
        """The paragraphs, in order. ``place`` is what messages call a row that cannot be used."""
        (path,) = self.files(base)
        paragraph: list[str] = []
        for number, line in enumerate([*path.read_text("utf-8").splitlines(), ""], start=1):
            if line.strip():
                paragraph.append(line)
            elif paragraph:
                yield Row({"text": "\n".join(paragraph)}, f"{path}:{number - len(paragraph)}")
                paragraph = []

    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """A pure function of row and tokenizer: it is what makes a run repeatable."""
        ids = tokenizer.encode(row.values["text"])
        if len(ids) < 2:
            raise BadRow("a paragraph of one token has nothing to predict")
        # For each token whether predicting it carries loss; labels are shifted later, once.
        return Example((Document(tuple(ids), (True,) * len(ids)),))

    def fingerprint(self, base: Path) -> str:
        """Of the content, kept in the run's lock: a resume on other data is refused."""
        (path,) = self.files(base)
        return hashlib.sha256(path.read_bytes()).hexdigest()
