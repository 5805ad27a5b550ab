"""What a tokenizer is to the SDK; ``tokenizers`` and ``sentencepiece_tokenizer`` are the real ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path


class Tokenizer(ABC):
    """Text to ids and back. Nothing in it knows what a chat is; ``data.templates`` does."""

    vocab_size: int
    """Ids are below this, special and added tokens included."""
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    adds_bos: bool
    """Whether ``encode`` with ``special=True`` puts ``bos_id`` in front."""
    chat_template: str | None
    """Jinja source as in tokenizer_config.json, None where the model has none."""
    tool_template: str | None = None
    """The template for conversations with tools, where the model has one of its own."""
    special_tokens: dict[str, str]
    """``{"bos_token": "<s>", ...}``: what a chat template may refer to."""

    @abstractmethod
    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of ``text``; ``special`` adds BOS/EOS where this tokenizer does. Special tokens
        spelled out in the text become their ids, as transformers does."""

    def encode_with_offsets(self, text: str, *, special: bool = False) -> tuple[list[int], Sequence[tuple[int, int]]]:
        """Ids, and for each the ``[start, end)`` of the characters of ``text`` it stands for. Neither starts nor ends
        ever go back.

        Raises:
            NotImplementedError: this tokenizer cannot tell (then masks are made from prefixes).
        """
        raise NotImplementedError

    @abstractmethod
    def decode(self, ids: list[int], *, skip_special: bool = True) -> str:
        """Text of ``ids``."""

    @abstractmethod
    def token(self, token_id: int) -> str:
        """The raw piece of one id.

        Raises:
            ValueError: no token has that id.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the files that transformers' AutoTokenizer reads into ``folder``."""

    def set_chat_template(self, template: str) -> None:
        """Use ``template`` for every conversation, and save it."""
        self.chat_template, self.tool_template = template, None

    def fingerprint(self) -> str:
        """A hash of everything that decides ids: equal fingerprints, equal tokens."""
        raise NotImplementedError

    def release(self) -> None:  # noqa: B027 - there may be nothing to let go of
        """Let go of memory that only encoding and decoding need; a later call makes it again. A run asks for it when
        its data is read. Nothing changes by it but memory, and nothing is done by default."""


class TemplatedTokenizer(Tokenizer):
    """One with several chat templates by name, as files have them: what is assigned is what is saved and hashed."""

    templates: dict[str, str]
    _fingerprint: str | None = None

    @property
    def chat_template(self) -> str | None:
        """See ``Tokenizer``."""
        return self.templates.get("default")

    @chat_template.setter
    def chat_template(self, template: str | None) -> None:
        self._name("default", template)

    @property
    def tool_template(self) -> str | None:
        """See ``Tokenizer``."""
        return self.templates.get("tool_use")

    @tool_template.setter
    def tool_template(self, template: str | None) -> None:
        self._name("tool_use", template)

    def set_chat_template(self, template: str) -> None:
        """Replace every chat template with this one."""
        self.templates, self._fingerprint = {"default": template}, None

    def _name(self, name: str, template: str | None) -> None:
        others = {key: value for key, value in self.templates.items() if key != name}
        self.templates, self._fingerprint = others | ({} if template is None else {name: template}), None


def piece_of(tokenizer: Tokenizer, token_id: int) -> str | None:
    """The raw piece of one id, None where no token has it."""
    try:
        return tokenizer.token(token_id)
    except ValueError:
        return None


def first_difference(one: Tokenizer, other: Tokenizer) -> int | None:
    """The lowest id of ``one`` that is another piece to ``other``, or none; None where there is no such id. Ids that
    only ``other`` has do not matter, nor how text is cut into pieces: this is about who can read the ids of ``one``."""
    pieces = ((i, piece_of(one, i)) for i in range(one.vocab_size))
    return next((i for i, piece in pieces if piece is not None and piece != piece_of(other, i)), None)
