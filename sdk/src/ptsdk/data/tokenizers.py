"""Tokenizers over the ``tokenizers`` library: from tokenizer.json, from parts, or plain bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from ptsdk.data import llama_tokenizer
from ptsdk.data import tokenizer_files as files
from ptsdk.data.tokenizer import Tokenizer
from ptsdk.errors import Problem, UserError

UNREAD = ("vocab.json", "vocab.txt", "tekken.json", "tiktoken.model", "spiece.model")
"""Vocabularies that only transformers' converters read."""


class FastTokenizer(Tokenizer):
    """What transformers' AutoTokenizer makes of the same tokenizer.json, id for id.

    tokenizer.json is taken as it is, but for the class LlamaTokenizer, which rebuilds it
    (``llama_tokenizer``); what is saved names the class that takes the file as it is.

    Args:
        backend: the ``tokenizers`` pipeline; it belongs to this object from now on.
        config: the keys of tokenizer_config.json. With ``add_bos_token`` or ``add_eos_token`` the
            post-processor is made from them, else the backend's own is kept.
        chat_template: Jinja source, or several by name (``default``, ``tool_use``).
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, Any],
        chat_template: str | Mapping[str, str] | None = None,
    ) -> None:
        self._backend = backend
        self.config = dict(config)
        self._set_templates(chat_template)
        self.special_tokens = files.special_tokens(self.config)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = bool(self.config.get("split_special_tokens", False))
        self._add_tokens()
        self.bos_id, self.eos_id, self.pad_id = (self._id(f"{name}_token") for name in ("bos", "eos", "pad"))
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
        self._detach_post_processor()

    def _set_templates(self, chat_template: str | Mapping[str, str] | None) -> None:
        self.templates = files.named_templates(chat_template)
        self.chat_template = self.templates.get("default")
        self.tool_template = self.templates.get("tool_use")

    def set_chat_template(self, template: str) -> None:
        """Replace every chat template with this one."""
        self._set_templates(template)

    def _id(self, name: str) -> int | None:
        text = self.special_tokens.get(name)
        return None if text is None else self._backend.token_to_id(text)

    def _add_tokens(self) -> None:
        """Register the tokens that the config names and the backend does not know as added ones."""
        known = {repr(token) for token in self._backend.get_added_tokens_decoder().values()}
        listed = sorted((self.config.get("added_tokens_decoder") or {}).items(), key=lambda item: int(item[0]))
        tokens = [token for _, value in listed if repr(token := _added(value)) not in known]
        texts = {token.content for token in self._backend.get_added_tokens_decoder().values()}
        texts |= {token.content for token in tokens}
        named = [self.config.get(key) or text for key, text in self.special_tokens.items()]
        for value in [*named, *files.extra_tokens(self.config)]:
            token = _added(value)
            if token.content not in texts:
                texts.add(token.content)
                tokens.append(token)
        for token in tokens:
            token.special = token.special or token.content in self.special_tokens.values()
        self._backend.add_tokens(tokens)

    def _detach_post_processor(self) -> None:
        """Take the post-processor off, after learning what it adds.

        Byte-level ones trim white space from offsets, which would leave tokens that no character
        of a mask reaches.
        """
        if "add_bos_token" in self.config or "add_eos_token" in self.config:
            bos = self.special_tokens.get("bos_token") if self.config.get("add_bos_token") else None
            eos = self.special_tokens.get("eos_token") if self.config.get("add_eos_token") else None
            self._backend.post_processor = _template_processing(self._backend, bos, eos)
        self._post_processor = self._backend.post_processor
        with_special = self._backend.encode("a", add_special_tokens=True).ids
        plain = self._backend.encode("a", add_special_tokens=False).ids
        start = next(i for i in range(len(with_special) + 1) if with_special[i : i + len(plain)] == plain)
        self._prefix, self._suffix = with_special[:start], with_special[start + len(plain) :]
        self.adds_bos = self.bos_id is not None and self._prefix[:1] == [self.bos_id]
        self._backend.post_processor = None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of ``text``; see the contract."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return [*self._prefix, *ids, *self._suffix] if special else ids

    def encode_with_offsets(self, text: str, *, special: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and the characters each stands for; what the tokenizer adds stands for none."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids, offsets = encoding.ids, encoding.offsets
        if not special:
            return ids, offsets
        before, after = [(0, 0)] * len(self._prefix), [(len(text), len(text))] * len(self._suffix)
        return [*self._prefix, *ids, *self._suffix], [*before, *offsets, *after]

    def decode(self, ids: list[int], *, skip_special: bool = True) -> str:
        """Text of ``ids``, with spaces cleaned up where the config asks for it."""
        text: str = self._backend.decode(ids, skip_special_tokens=skip_special)
        return _clean_up(text) if self._cleans_up() else text

    def _cleans_up(self) -> bool:
        # transformers ignores the flag for BPE: there the clean-up eats spaces that were in the text.
        forced = self.config.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
        is_bpe = type(self._backend.model).__name__ == "BPE"
        return bool(self.config.get("clean_up_tokenization_spaces", False)) and (forced or not is_bpe)

    def token(self, token_id: int) -> str:
        """The raw piece of one id.

        Raises:
            ValueError: no token has that id.
        """
        piece: str | None = self._backend.id_to_token(token_id)
        if piece is None:
            raise ValueError(f"no token has the id {token_id}")
        return piece

    def to_json(self) -> str:
        """The text of tokenizer.json."""
        return self._json

    @cached_property
    def _json(self) -> str:
        """Made once: while it is made, another thread would get other offsets."""
        self._backend.post_processor = self._post_processor
        text: str = self._backend.to_str()
        self._backend.post_processor = None
        return text

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and the chat templates.

        The class is written as PreTrainedTokenizerFast: transformers' other classes rebuild parts
        of the pipeline, this one takes tokenizer.json as it is, so ids stay those trained on.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self.to_json(), encoding="utf-8")
        dropped = {"add_bos_token", "add_eos_token", "tokenizer_class"}
        config = {k: v for k, v in self.config.items() if k not in dropped}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        files.write_config(folder, config, self.templates)

    def fingerprint(self) -> str:
        """SHA-256 of the pipeline, the special tokens and the chat templates."""
        split = bool(self.config.get("split_special_tokens", False))
        parts = [self.to_json(), self.special_tokens, self.templates, split]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ByteTokenizer(FastTokenizer):
    """UTF-8 bytes as ids 0-255, then ``<bos>`` 256, ``<eos>`` 257, ``<pad>`` 258. Adds none of them itself."""

    def __init__(self, chat_template: str | Mapping[str, str] | None = None) -> None:
        backend = tokenizers.Tokenizer(models.BPE(vocab=_byte_alphabet(), merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
        backend.add_special_tokens(list(special.values()))
        super().__init__(backend, special, chat_template)


def from_folder(folder: Path) -> Tokenizer | None:
    """The tokenizer whose files lie in ``folder``, None where there are none.

    Raises:
        UserError: a file is damaged, or of a kind that has to be converted first.
    """
    config = files.read_config(folder)
    templates = files.read_templates(folder, config)
    if (folder / "tokenizer.json").is_file():
        return FastTokenizer(_read_backend(folder, config), config, templates)
    if (folder / "tokenizer.model").is_file():
        from ptsdk.data.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(folder / "tokenizer.model", config, templates)
    if unread := next((name for name in UNREAD if (folder / name).is_file()), None):
        hint = "convert it once: transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        problem = Problem("only tokenizer.json and tokenizer.model are read", hint, str(folder / unread))
        raise UserError(problem)
    return None


def _read_backend(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    path, model = folder / "tokenizer.json", folder / "config.json"
    pipeline = files.read_json(path)  # tells where the JSON is broken; the library only says that it is
    model_type = files.read_json(model).get("model_type") if model.is_file() else None
    try:
        if llama_tokenizer.is_rebuilt(config, model_type, pipeline):
            return tokenizers.Tokenizer.from_str(json.dumps(llama_tokenizer.rebuilt(config, pipeline)))
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(Problem(f"not a tokenizer: {error}", "fetch the file again", str(path))) from error


def _added(value: Any) -> AddedToken:
    if isinstance(value, str):
        return AddedToken(value, special=True)
    names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(**{name: value[name] for name in names if name in value})


def _template_processing(
    backend: tokenizers.Tokenizer, bos: str | None, eos: str | None
) -> processors.TemplateProcessing:
    single = " ".join([*([f"{bos}:0"] if bos else []), "$A:0", *([f"{eos}:0"] if eos else [])])
    pair = " ".join([single, *([f"{bos}:1"] if bos else []), "$B:1", *([f"{eos}:1"] if eos else [])])
    special = [(text, backend.token_to_id(text)) for text in (bos, eos) if text]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-in of each byte, as byte-level BPE writes it (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {**{chr(b): b for b in printable}, **{chr(256 + i): b for i, b in enumerate(rest)}}


def _clean_up(text: str) -> str:
    for old in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(old, old.strip())
    return text
