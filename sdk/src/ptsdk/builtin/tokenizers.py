"""The tokenizers of core: what the model brings, what a folder holds, or bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ptsdk.checkpoint.inside import refuse_links_out
from ptsdk.checkpoint.tokenizers import from_folder
from ptsdk.contracts.tokenizer import Tokenizer, TokenizerSource
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.errors import Problem, UserError

if TYPE_CHECKING:
    from ptsdk.contracts.checkpoint import Checkpoint

TEMPLATE = "a Jinja file that replaces the tokenizer's chat template"


class Auto(TokenizerSource):
    """``tokenizer: {path: folder}``, or the model's own where there is no path."""

    path: str | None = Field(
        None, description="a folder with tokenizer.json or tokenizer.model; the model's by default"
    )
    chat_template: str | None = Field(None, description=TEMPLATE)

    @property
    def needs_model(self) -> bool:
        """Unless it has a path of its own."""
        return self.path is None

    def files(self, base: Path) -> None:
        """Look for what the options name.

        Raises:
            UserError: it is not there.
        """
        if self.path is not None:
            local_folder(self.path, base)
        if self.chat_template is not None:
            read_template(self.chat_template, base)

    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        """See the contract."""
        tokenizer = self._find(model, base)
        if self.chat_template is None:
            return tokenizer
        return with_template(tokenizer, read_template(self.chat_template, base))

    def _find(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        if self.path is not None:
            folder = local_folder(self.path, base)
            tokenizer = from_folder(folder)
            where = str(folder)
        else:
            tokenizer = model.tokenizer() if model is not None else None
            where = str(model.path) if model is not None else "the job"
        if tokenizer is None:
            hint = "set tokenizer.path to a folder with a tokenizer.json, or `tokenizer: {use: bytes}`"
            raise UserError(Problem(f"{where} brings no tokenizer", hint, path="tokenizer"))
        return tokenizer


class Bytes(TokenizerSource):
    """UTF-8 bytes, and <bos>, <eos>, <pad>: 259 ids, no files."""

    chat_template: str | None = Field(None, description=TEMPLATE)

    def files(self, base: Path) -> None:
        """Look for the chat template.

        Raises:
            UserError: it is not there.
        """
        if self.chat_template is not None:
            read_template(self.chat_template, base)

    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        """See the contract."""
        return ByteTokenizer(None if self.chat_template is None else read_template(self.chat_template, base))


def local_folder(name: str, base: Path) -> Path:
    """The folder that ``tokenizer.path`` names.

    Raises:
        UserError: there is none, or a link leads out of it.
    """
    folder = base / Path(name).expanduser()
    if not folder.is_dir():
        hint = "name a local folder; without a path the model's tokenizer is used"
        raise UserError(Problem(f"no such folder: {name}", hint, path="tokenizer.path"))
    refuse_links_out(folder)
    return folder


def read_template(name: str, base: Path) -> str:
    """The text of a chat template's file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return (base / Path(name).expanduser()).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "paths are relative to the job file"
        raise UserError(
            Problem(f"the chat template cannot be read: {error}", hint, path="tokenizer.chat_template")
        ) from error


def with_template(tokenizer: Tokenizer, template: str) -> Tokenizer:
    """The tokenizer with another chat template; it was made for this run, so it is changed in place."""
    tokenizer.set_chat_template(template)
    return tokenizer
