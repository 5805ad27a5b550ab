"""Tokenizers over the ``tokenizers`` library: from tokenizer.json, from parts, or plain bytes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from ptsdk.data import llama_tokenizer
from ptsdk.data import tokenizer_files as files
from ptsdk.data.tokenizer import TemplatedTokenizer, Tokenizer
from ptsdk.errors import Problem, UserError

UNREAD = ("vocab.json", "vocab.txt", "tekken.json", "tiktoken.model", "spiece.model")
"""Vocabularies that only transformers' converters read."""
_PARSING = threading.Lock()


class Facts(NamedTuple):
    """What a run asks of a tokenizer without encoding anything; ``FastTokenizer.known`` takes them."""

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    prefix: list[int]
    """Ids that are put in front of every text."""
    suffix: list[int]
    """Ids that are put behind."""
    fingerprint: str


class FastTokenizer(TemplatedTokenizer):
    """What transformers' AutoTokenizer makes of the same tokenizer.json, id for id.

    tokenizer.json is taken as it is, but for the class LlamaTokenizer, which rebuilds it
    (``llama_tokenizer``); what is saved names the class that takes the file as it is.

    The pipeline with its vocabulary (of 262,144 pieces: 350 MB, a second to parse) is there while it is used. After
    ``release``, and in one that is ``known``, there is its text (12 MB), and whoever encodes has it parsed.

    Args:
        backend: the ``tokenizers`` pipeline; it belongs to this object from now on.
        config: the keys of tokenizer_config.json. With ``add_bos_token`` or ``add_eos_token`` the
            post-processor is made from them, else the backend's own is kept.
        chat_template: Jinja source, or several by name (``default``, ``tool_use``).
        text: the JSON that ``backend`` was read from, if any: where nothing is changed it is what is saved.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, Any],
        chat_template: str | Mapping[str, str] | None = None,
        text: bytes | None = None,
    ) -> None:
        self._describe(config, chat_template)
        self._parsed: tokenizers.Tokenizer | None = backend
        self._fingerprint: str | None = None
        changed = backend.truncation is not None or backend.padding is not None or self._replaces_post_processor()
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = self._splits_special()
        changed = self._add_tokens() or changed
        self._text = None if changed else text
        self.bos_id, self.eos_id, self.pad_id = (self._id(f"{name}_token") for name in ("bos", "eos", "pad"))
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
        self._detach_post_processor()

    @classmethod
    def known(
        cls,
        text: bytes,
        facts: Facts,
        config: Mapping[str, Any],
        chat_template: str | Mapping[str, str] | None = None,
    ) -> Self:
        """One that was there before, without its vocabulary until that is used.

        Args:
            text: its ``to_json``, in UTF-8.
            facts: its ``facts``.
            config: of that one.
            chat_template: of that one.
        """
        self = cls.__new__(cls)
        self._describe(config, chat_template)
        self._parsed, self._text, self._fingerprint = None, text, facts.fingerprint
        self.vocab_size, self.bos_id, self.eos_id, self.pad_id = facts[:4]
        self._set_around(facts.prefix, facts.suffix)
        return self

    def facts(self) -> Facts:
        """What ``known`` has to be told."""
        ids = (self.bos_id, self.eos_id, self.pad_id)
        return Facts(self.vocab_size, *ids, self._prefix, self._suffix, self.fingerprint())

    def _describe(self, config: Mapping[str, Any], chat_template: str | Mapping[str, str] | None) -> None:
        self.config = dict(config)
        self.templates = files.named_templates(chat_template)
        self.special_tokens = files.special_tokens(self.config)

    @property
    def _backend(self) -> tokenizers.Tokenizer:
        """The pipeline without its post-processor, parsed where it was let go of."""
        if (backend := self._parsed) is None:
            with _PARSING:
                backend = self._parsed = self._parsed or self._parse()
        return backend

    def _parse(self) -> tokenizers.Tokenizer:
        assert self._text is not None  # one without a pipeline has its text
        backend = tokenizers.Tokenizer.from_buffer(self._text)
        backend.encode_special_tokens = self._splits_special()
        backend.post_processor = None
        return backend

    def release(self) -> None:
        """Keep the text of the pipeline alone; see the contract."""
        self._text = self._json()
        self._parsed = None

    def _splits_special(self) -> bool:
        return bool(self.config.get("split_special_tokens", False))

    def _id(self, name: str) -> int | None:
        text = self.special_tokens.get(name)
        return None if text is None else self._backend.token_to_id(text)

    def _add_tokens(self) -> bool:
        """Register the tokens that the config names and the backend does not know as added ones; whether there were
        any."""
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
        return bool(tokens)

    def _replaces_post_processor(self) -> bool:
        return "add_bos_token" in self.config or "add_eos_token" in self.config

    def _detach_post_processor(self) -> None:
        """Take the post-processor off, after learning what it adds.

        Byte-level ones trim white space from offsets, which would leave tokens that no character
        of a mask reaches.
        """
        if self._replaces_post_processor():
            bos = self.special_tokens.get("bos_token") if self.config.get("add_bos_token") else None
            eos = self.special_tokens.get("eos_token") if self.config.get("add_eos_token") else None
            self._backend.post_processor = _template_processing(self._backend, bos, eos)
        self._post_processor = self._backend.post_processor
        with_special = self._backend.encode("a", add_special_tokens=True).ids
        plain = self._backend.encode("a", add_special_tokens=False).ids
        start = next(i for i in range(len(with_special) + 1) if with_special[i : i + len(plain)] == plain)
        self._set_around(with_special[:start], with_special[start + len(plain) :])
        self._backend.post_processor = None

    def _set_around(self, prefix: list[int], suffix: list[int]) -> None:
        self._prefix, self._suffix = prefix, suffix
        self.adds_bos = self.bos_id is not None and prefix[:1] == [self.bos_id]

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of ``text``; see the contract."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return [*self._prefix, *ids, *self._suffix] if special else ids

    def encode_with_offsets(self, text: str, *, special: bool = False) -> tuple[list[int], Sequence[tuple[int, int]]]:
        """Ids and the characters each stands for; what the tokenizer adds stands for none."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        if not special:
            return encoding.ids, _Offsets(encoding)
        before, after = [(0, 0)] * len(self._prefix), [(len(text), len(text))] * len(self._suffix)
        return [*self._prefix, *encoding.ids, *self._suffix], [*before, *encoding.offsets, *after]

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
        return self._json().decode()

    def _json(self) -> bytes:
        """Made once: while it is made, another thread would get other offsets."""
        if self._text is None:
            self._backend.post_processor = self._post_processor
            text: str = self._backend.to_str()
            self._backend.post_processor = None
            self._text = text.encode()
        return self._text

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and the chat templates.

        The class is written as PreTrainedTokenizerFast: transformers' other classes rebuild parts
        of the pipeline, this one takes tokenizer.json as it is, so ids stay those trained on.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_bytes(self._json())
        dropped = {"add_bos_token", "add_eos_token", "tokenizer_class"}
        config = {k: v for k, v in self.config.items() if k not in dropped}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        files.write_config(folder, config, self.templates)

    def fingerprint(self) -> str:
        """SHA-256 of the pipeline, the special tokens and the chat templates."""
        if self._fingerprint is None:
            rest = [self.special_tokens, self.templates, self._splits_special()]
            pipeline = hashlib.sha256(self._json()).hexdigest()
            self._fingerprint = hashlib.sha256(json.dumps([pipeline, *rest], sort_keys=True).encode()).hexdigest()
        return self._fingerprint


class _Offsets(Sequence[tuple[int, int]]):
    """Those of one encoding, each made when it is asked for: a mask asks for a few of them."""

    def __init__(self, encoding: tokenizers.Encoding) -> None:
        self._encoding, self._size = encoding, len(encoding)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, int) and 0 <= index < self._size:
            return self._encoding.token_to_chars(index)
        return self._encoding.offsets[index]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._encoding.offsets)


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
        backend, text = _read_backend(folder, config)
        return FastTokenizer(backend, config, templates, text)
    if (folder / "tokenizer.model").is_file():
        from ptsdk.data.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(folder / "tokenizer.model", config, templates)
    if unread := next((name for name in UNREAD if (folder / name).is_file()), None):
        hint = "convert it once: transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        problem = Problem("only tokenizer.json and tokenizer.model are read", hint, str(folder / unread))
        raise UserError(problem)
    return None


def _read_backend(folder: Path, config: Mapping[str, Any]) -> tuple[tokenizers.Tokenizer, bytes]:
    """The pipeline of tokenizer.json, and its text."""
    path, model = folder / "tokenizer.json", folder / "config.json"
    model_type = files.read_json(model).get("model_type") if model.is_file() else None
    try:
        if llama_tokenizer.may_be_rebuilt(config, model_type):
            pipeline = files.read_json(path)
            if llama_tokenizer.is_rebuilt(pipeline):
                text = json.dumps(llama_tokenizer.rebuilt(config, pipeline)).encode()
                return tokenizers.Tokenizer.from_buffer(text), text
        text = path.read_bytes()
        return tokenizers.Tokenizer.from_buffer(text), text
    except UserError:
        raise
    except Exception as error:  # the library raises nothing narrower
        files.read_json(path)  # tells where the JSON is broken; the library only says that it is
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
