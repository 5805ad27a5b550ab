"""Rows of JSONL files by their number: eight bytes a row are kept, and rows are read when they are asked for."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
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
    """Where each row of a file begins, how many rows stand above each blank line, and the file."""

    def __init__(self, file: DataFile) -> None:
        self.file = file
        self._offsets, self._blanks, end = array("q"), array("q"), 0
        try:
            self._descriptor = os.open(file.url, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            with open(file.url, "rb") as stream:
                for line in stream:
                    if line.strip():
                        self._offsets.append(end)
                    else:
                        self._blanks.append(len(self._offsets))
                    end += len(line)
        except OSError as error:
            raise UserError(Problem(f"cannot be read: {error}", "", file.name)) from error
        self._offsets.append(end)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def row(self, index: int) -> Row:
        """Row number ``index`` of this file."""
        start, stop = self._offsets[index], self._offsets[index + 1]
        line = os.pread(self._descriptor, stop - start, start)
        if len(line) < stop - start:
            raise RunError(f"{self.file.name} has become shorter while it was read")
        return row_of_line(line, self.file, self._line(index))

    def _line(self, index: int) -> int:
        """The number, from 1, of the line that a row stands on."""
        return index + 1 + bisect_right(self._blanks, index)
