"""Tokenizers over a SentencePiece tokenizer.model, with added tokens cut out first."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ptsdk.data import tokenizer_files as files
from ptsdk.data.tokenizer import TemplatedTokenizer
from ptsdk.errors import Problem, UserError

SPACE = "\u2581"
GUARD = "\ue000"
"""A private-use character: no vocabulary has a piece that joins it to what follows."""


class SentencePieceTokenizer(TemplatedTokenizer):
    """tokenizer.model as SentencePiece reads it.

    Control pieces (``<s>``) and the config's added tokens become their ids wherever they are
    spelled out. The space that SentencePiece puts in front of a text is put there once, not
    again after each such token, unless the config says ``legacy: true``. A text that begins with a
    space keeps it beside the added one, as the model was trained; transformers' conversion drops it.

    Args:
        path: tokenizer.model.
        config: the keys of tokenizer_config.json; ``add_bos_token`` defaults to False, as in transformers.
        chat_template: Jinja source, or several by name.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], chat_template: str | Mapping[str, str] | None = None
    ) -> None:
        self._proto = path.read_bytes()
        self._loaded: Any = _load(self._proto, path)
        self.config = dict(config)
        self.templates = files.named_templates(chat_template)
        self.special_tokens = {**self._own_special_tokens(), **files.special_tokens(self.config)}
        self._added = self._added_tokens()
        self._by_id = {index: text for text, index in self._added.items()}
        self.vocab_size = 1 + max([self._processor.vocab_size() - 1, *self._added.values()])
        self.bos_id, self.eos_id, self.pad_id = (self._id(f"{name}_token") for name in ("bos", "eos", "pad"))
        self.adds_bos = bool(self.config.get("add_bos_token", False)) and self.bos_id is not None
        self._adds_eos = bool(self.config.get("add_eos_token", False)) and self.eos_id is not None
        longest_first = sorted(self._added, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._adds_space = self._processor.encode("a", out_type=str)[:1] != ["a"]
        self._special_ids = {self._added[t] for t in self.special_tokens.values() if t in self._added}

    @property
    def _processor(self) -> Any:
        """SentencePiece's own object, made again where it was let go of."""
        if (processor := self._loaded) is None:
            processor = self._loaded = _load(self._proto, Path("tokenizer.model"))
        return processor

    def release(self) -> None:
        """Keep the bytes of tokenizer.model alone; see the contract."""
        self._loaded = None

    def _own_special_tokens(self) -> dict[str, str]:
        ids = {"bos": self._processor.bos_id(), "eos": self._processor.eos_id(), "unk": self._processor.unk_id()}
        return {f"{k}_token": self._processor.id_to_piece(i) for k, i in ids.items() if i >= 0}

    def _added_tokens(self) -> dict[str, int]:
        """Text -> id of control pieces and of the config's added tokens, new ones at the end."""
        p = self._processor
        added = {p.id_to_piece(i): i for i in range(p.vocab_size()) if p.is_control(i)}
        for index, token in (self.config.get("added_tokens_decoder") or {}).items():
            added[token["content"]] = int(index)
        following = 1 + max([p.vocab_size() - 1, *added.values()])
        for text in [*self.special_tokens.values(), *map(files.content, files.extra_tokens(self.config))]:
            if text is None or text in added:
                continue
            index = p.piece_to_id(text)
            if p.id_to_piece(index) != text:
                index, following = following, following + 1
            added[text] = index
        return added

    def _id(self, name: str) -> int | None:
        return self._added.get(self.special_tokens.get(name, ""))

    def _pieces(self, text: str) -> Iterator[tuple[int, int, str, int | None]]:
        """Stretches ``(start, end, text, id)`` of ``text``; ``id`` is None for plain text."""
        start = 0
        for match in self._split.finditer(text) if self._split else ():
            if match.start() > start:
                yield start, match.start(), text[start : match.start()], None
            yield match.start(), match.end(), match.group(), self._added[match.group()]
            start = match.end()
        if start < len(text):
            yield start, len(text), text[start:], None

    def _plain(self, text: str, start: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of plain text that begins at character ``start`` of the whole."""
        # SentencePiece always adds its space; a guard in front takes it, and is dropped again.
        guard = GUARD if start > 0 and not self.config.get("legacy", False) else ""
        result = self._processor.encode(guard + text, return_type="offset_mapping")
        ids, offsets = [], []
        for token_id, (begin, end) in zip(result["ids"], result["offsets"], strict=True):
            if begin < len(guard) and end <= len(guard):
                continue
            # A byte of a longer character has no width of its own; it stands for that character.
            ids.append(token_id)
            shift = start - len(guard)
            offsets.append((max(begin, len(guard)) + shift, max(end, begin + 1) + shift))
        return ids, offsets

    def encode_with_offsets(self, text: str, *, special: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and the characters each stands for; see the contract."""
        ids: list[int] = [self.bos_id] if special and self.adds_bos and self.bos_id is not None else []
        offsets = [(0, 0)] * len(ids)
        for start, end, stretch, token_id in self._pieces(text):
            if token_id is not None:
                ids.append(token_id)
                offsets.append((start, end))
                continue
            more, places = self._plain(stretch, start)
            ids += more
            offsets += places
        if special and self._adds_eos and self.eos_id is not None:
            ids.append(self.eos_id)
            offsets.append((len(text), len(text)))
        return ids, offsets

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of ``text``; see the contract."""
        return self.encode_with_offsets(text, special=special)[0]

    def decode(self, ids: list[int], *, skip_special: bool = True) -> str:
        """Text of ``ids``; added tokens are written out unless they are special and skipped."""
        text, run = "", list[int]()
        for token_id in ids:
            if token_id not in self._by_id:
                run.append(token_id)
                continue
            text += self._decode_run(run, first=not text)
            run = []
            if not (skip_special and token_id in self._special_ids):
                text += self._by_id[token_id]
        return text + self._decode_run(run, first=not text)

    def _decode_run(self, run: list[int], first: bool) -> str:
        if not run:
            return ""
        text: str = self._processor.decode(run)
        starts_with_space = self._adds_space and self.token(run[0]).startswith(SPACE)
        return text if first or not starts_with_space else " " + text

    def token(self, token_id: int) -> str:
        """The raw piece of one id.

        Raises:
            ValueError: no token has that id.
        """
        if token_id in self._by_id:
            return self._by_id[token_id]
        if not 0 <= token_id < self._processor.vocab_size():
            raise ValueError(f"no token has the id {token_id}")
        piece: str = self._processor.id_to_piece(token_id)
        return piece

    def save(self, folder: Path) -> None:
        """Write tokenizer.model, tokenizer_config.json and the chat templates, the class as it came."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(self._proto)
        config = {"legacy": False, **self.config, **self.special_tokens}
        config["add_bos_token"], config["add_eos_token"] = self.adds_bos, self._adds_eos
        files.write_config(folder, config, self.templates)

    def fingerprint(self) -> str:
        """SHA-256 of the model, the added and special tokens and the chat templates."""
        flags = [self.adds_bos, self._adds_eos]
        parts = [hashlib.sha256(self._proto).hexdigest(), self._added, self.special_tokens, self.templates, flags]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}


def _load(proto: bytes, path: Path) -> Any:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(proto)
    except RuntimeError as error:
        hint = "a tiktoken vocabulary has the same name; use the tokenizer.json of the transformers checkpoint"
        raise UserError(Problem("not a SentencePiece model", hint, str(path))) from error
    return processor
