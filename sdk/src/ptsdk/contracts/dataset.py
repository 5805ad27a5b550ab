"""Data sets: rows of a file or a hub, each turned into an example."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ptsdk.contracts.component import Component
from ptsdk.data.example import Example, Row
from ptsdk.errors import UserError

if TYPE_CHECKING:
    from ptsdk.contracts.tokenizer import Tokenizer


class Dataset(Component):
    """One entry of ``data.train`` or ``data.validation``."""

    kind: ClassVar[str] = "dataset"
    example_rows: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """Rows as it reads them, for the conformance suite; none means the columns of the built-in ones."""

    weight: float | None = Field(
        None, gt=0, description="share of this set in a mixture; without weights every row is seen once an epoch"
    )

    @abstractmethod
    def rows(self, base: Path) -> Iterable[Row]:
        """The rows, in a fixed order.

        Args:
            base: the folder that relative paths are relative to.

        Raises:
            UserError: no such file, or a line that cannot be parsed (named ``file:line``).
        """

    @abstractmethod
    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """The example of one row: a pure function of both arguments.

        Raises:
            BadRow: the row is malformed; the caller adds its place.
        """

    def by_number(self, base: Path) -> Sequence[Row]:
        """The same rows, each read when it is asked for: what ``data.streaming`` needs.

        Raises:
            UserError: they can only be read in order, as any can that this does not say otherwise of.
        """
        hint = "leave data.streaming out, or write the rows to a JSONL file"
        raise UserError(f"{type(self).__name__} reads its rows in order alone, so they cannot be streamed", hint=hint)

    def fingerprint(self, base: Path) -> str:
        """A hash of the data, kept in the lock: resuming on other data is refused."""
        raise NotImplementedError
