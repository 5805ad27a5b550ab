"""Sources of tokenizers."""

from __future__ import annotations

import uuid
from pathlib import Path

from ptsdk.builtin.tokenizers import Bytes
from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.tokenizers import ByteTokenizer


class ClaimsAModel(Bytes):
    @property
    def needs_model(self) -> bool:
        return True


class SqueezingTokenizer(ByteTokenizer):
    def decode(self, ids: list[int], *, skip_special: bool = True) -> str:
        return " ".join(super().decode(ids, skip_special=skip_special).split())


class Squeezing(Bytes):
    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        return SqueezingTokenizer()


class ClaimsBos(Bytes):
    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        tokenizer = super().load(model, base)
        tokenizer.adds_bos = not tokenizer.adds_bos
        return tokenizer


class BackwardsTokenizer(ByteTokenizer):
    def encode_with_offsets(self, text: str, *, special: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        ids, offsets = super().encode_with_offsets(text, special=special)
        return ids, offsets[::-1]


class Backwards(Bytes):
    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        return BackwardsTokenizer()


class UnsavedTokenizer(ByteTokenizer):
    def save(self, folder: Path) -> None:
        (folder / "README").write_text("the tokenizer is elsewhere")


class Unsaved(Bytes):
    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        return UnsavedTokenizer()


class ForgetfulTokenizer(ByteTokenizer):
    def release(self) -> None:
        self._suffix = [257]


class OtherWhenReleased(Bytes):
    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        return ForgetfulTokenizer()


class OtherTokenizer(ByteTokenizer):
    def fingerprint(self) -> str:
        return uuid.uuid4().hex


class OtherEachTime(Bytes):
    def load(self, model: Checkpoint | None, base: Path) -> Tokenizer:
        return OtherTokenizer()
