"""Rows of JSONL files by their number: sixteen bytes a row are kept, and rows are read when they are asked for."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from ptsdk.data.by_number import ByNumber
from ptsdk.data.example import Row
from ptsdk.data.rows import DataFile, rename, row_of_line
from ptsdk.errors import Problem, RunError, UserError


class JsonLines(ByNumber[Row]):
    """The rows that ``rows.read`` gives of the same files, in the same order.

    Args:
        files: on this machine, not compressed. They stay open, and are read through once.
        limit: as many rows, the first ones.
        columns: see ``rows.rename``.

    Raises:
        UserError: a file that cannot be read.
    """

    def __init__(self, files: Sequence[DataFile], limit: int | None = None, columns: Mapping[str, str] | None = None):
        self._files, self._columns = [_File(file) for file in files], dict(columns or {})
        self._starts = np.cumsum([0, *map(len, self._files)])
        self._length = int(self._starts[-1] if limit is None else min(limit, self._starts[-1]))

    def __len__(self) -> int:
        return self._length

    def item(self, index: int) -> Row:
        """See ``ByNumber``."""
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return rename(self._files[which].row(index - int(self._starts[which])), self._columns)


class _File:
    """Where each row of a file begins, its line, and the file."""

    def __init__(self, file: DataFile) -> None:
        self.file = file
        self._offsets, self._lines, end = array("q"), array("q"), 0
        try:
            self._descriptor = os.open(file.url, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            with open(file.url, "rb") as stream:
                for number, line in enumerate(stream, start=1):
                    if line.strip():
                        self._offsets.append(end)
                        self._lines.append(number)
                    end += len(line)
        except OSError as error:
            raise UserError(Problem(f"cannot be read: {error}", "", file.name)) from error
        self._offsets.append(end)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def __len__(self) -> int:
        return len(self._lines)

    def row(self, index: int) -> Row:
        """Row number ``index`` of this file."""
        start, stop = self._offsets[index], self._offsets[index + 1]
        line = os.pread(self._descriptor, stop - start, start)
        if len(line) < stop - start:
            raise RunError(f"{self.file.name} has become shorter while it was read")
        return row_of_line(line, self.file, self._lines[index])
