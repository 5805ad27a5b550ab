"""Components that make the tokenizer of a run."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ptsdk.contracts.component import Component
from ptsdk.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ptsdk.contracts.checkpoint import Checkpoint

__all__ = ["Tokenizer", "TokenizerSource"]


class TokenizerSource(Component):
    """Makes the tokenizer of a run. In a job: ``tokenizer: {use: bytes}`` or ``{path: ...}``."""

    kind: ClassVar[str] = "tokenizer"

    @property
    def needs_model(self) -> bool:
        """Whether it is the tokenizer of the model's checkpoint; a job without one is refused."""
        return False

    @abstractmethod
    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        """The tokenizer.

        Args:
            model: the model's checkpoint, None when it is built from scratch.
            base: the folder that relative paths are relative to.

        Raises:
            UserError: there is none, or a file of it is damaged.
        """
