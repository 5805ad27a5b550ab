"""Tokenizers against transformers' AutoTokenizer on the same files, and against SentencePiece."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ptsdk.builtin.tokenizers import Auto, Bytes
from ptsdk.data.sentencepiece_tokenizer import SentencePieceTokenizer
from ptsdk.data.tokenizers import ByteTokenizer, FastTokenizer, from_folder
from ptsdk.errors import UserError

CORPUS = [
    "the quick brown fox doesn't jump , over the lazy dog .",
    "Zürich, 12 345 people? yes!\n\n def f(x):\n    return x",
]
TEXTS = [
    *CORPUS, "", " ", "\n", " leading", "trailing ", "a  b\t\tc\r\n\n", "日本語 é̀ 😀👨‍👩‍👧", "<s>the</s>",
    "<s> the </s> fox<pad>", "<extra>x", "x <own> y", "x<extra> y", "[SEP] the", "doesn't , . ! ?",
    "a\x00b", "\ue000", "\u2581a",
]  # fmt: skip


def bpe(**names: Any) -> Backend:
    backend = Backend(models.BPE(unk_token=names.get("unk_token")))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS * 20, trainer)
    return backend


def word_piece() -> Backend:
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    backend.train_from_iterator(CORPUS * 20, trainers.WordPieceTrainer(special_tokens=special, show_progress=False))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return backend


def unigram() -> Backend:
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(CORPUS * 20, trainer)
    return backend


def with_bos(backend: Backend) -> Backend:
    """As Llama 3 does it: a byte-level processor, then a template."""
    bos = backend.token_to_id("<s>")
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return backend


def limited(backend: Backend) -> Backend:
    backend.enable_truncation(3)
    backend.enable_padding(length=8, pad_id=2, pad_token="<pad>")
    return backend


NAMES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
ADDED = {
    "4": {
        "content": "<own>",
        "lstrip": True,
        "rstrip": True,
        "special": False,
        "normalized": False,
        "single_word": False,
    }
}
FOLDERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (bpe, NAMES),
    "no names": (bpe, {}),
    "bos in the processor": (lambda: with_bos(bpe()), NAMES),
    "flags are ignored": (bpe, {**NAMES, "add_bos_token": True, "add_eos_token": True}),
    "flags are ignored too": (lambda: with_bos(bpe()), {**NAMES, "add_bos_token": False}),
    "truncation and padding": (lambda: limited(bpe()), NAMES),
    "new special tokens": (bpe, {**NAMES, "mask_token": "<extra>", "extra_special_tokens": ["[SEP]"]}),
    "tokens as mappings": (bpe, {"bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False}}),
    "named tokens of a model": (bpe, {**NAMES, "image_token": "<extra>", "extra_special_tokens": {"x_token": "[SEP]"}}),
    "listed tokens": (bpe, {**NAMES, "added_tokens_decoder": ADDED}),
    "a named token listed as plain": (bpe, {**NAMES, "mask_token": "<own>", "added_tokens_decoder": ADDED}),
    "special tokens split": (bpe, {**NAMES, "split_special_tokens": True}),
    "clean-up is not for bpe": (bpe, {**NAMES, "clean_up_tokenization_spaces": True}),
    "word piece": (word_piece, {"unk_token": "[UNK]", "sep_token": "[SEP]", "clean_up_tokenization_spaces": True}),
    "word piece, no clean-up": (word_piece, {"unk_token": "[UNK]", "sep_token": "[SEP]"}),
    "unigram": (unigram, {**NAMES, "unk_token": "<unk>", "clean_up_tokenization_spaces": True}),
}


def write(folder: Path, backend: Backend, config: dict[str, Any]) -> None:
    backend.save(str(folder / "tokenizer.json"))
    text = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config})
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def assert_same(ours: Any, theirs: Any) -> None:
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids, text
        assert ours.encode(text, special=False) == theirs(text, add_special_tokens=False)["input_ids"], text
        assert ours.encode_with_offsets(text)[0] == ours.encode(text, special=False)
        assert ours.encode_with_offsets(text, special=True)[0] == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids, skip_special_tokens=False), text
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert ours.special_tokens == theirs.special_tokens_map
    assert ours.vocab_size == max(theirs.get_vocab().values()) + 1
    assert [ours.token(i) for i in (0, 5, 50)] == theirs.convert_ids_to_tokens([0, 5, 50])


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_gives_what_transformers_gives(name: str, tmp_path: Path) -> None:
    make, config = FOLDERS[name]
    write(tmp_path, make(), config)
    ours, theirs = from_folder(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours is not None
    assert_same(ours, theirs)
    assert ours.adds_bos == (theirs("the")["input_ids"][0] == theirs.bos_token_id)
    ours.save(tmp_path / "saved")
    assert_same(ours, AutoTokenizer.from_pretrained(tmp_path / "saved"))
    again = from_folder(tmp_path / "saved")
    assert again is not None and again.fingerprint() == ours.fingerprint()
    again.release()
    assert_same(again, theirs)


def test_older_files_are_read(tmp_path: Path) -> None:
    write(tmp_path, bpe(), {})
    special = {
        "bos_token": {"content": "<s>", "lstrip": True},
        "eos_token": "</s>",
        "additional_special_tokens": ["[SEP]"],
    }
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<extra>": 330}), encoding="utf-8")
    ours = from_folder(tmp_path)
    assert ours is not None
    assert_same(ours, AutoTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True}])
def test_made_from_parts_it_obeys_the_flags(flags: dict[str, bool], tmp_path: Path) -> None:
    config = {**NAMES, **flags}
    ours = FastTokenizer(bpe(), config, "{{ bos_token }}")
    theirs = PreTrainedTokenizerFast(tokenizer_object=bpe(), **config)
    assert_same(ours, theirs)
    assert ours.adds_bos == flags.get("add_bos_token", False)
    ours.save(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert_same(ours, saved)
    assert saved.chat_template == "{{ bos_token }}"


def test_offsets_cover_every_character() -> None:
    tokenizer = FastTokenizer(with_bos(bpe()), NAMES)
    for text in TEXTS:
        ids, offsets = tokenizer.encode_with_offsets(text)
        whole = tokenizer._backend.encode(text, add_special_tokens=False).offsets
        assert list(offsets) == [offsets[i] for i in range(len(ids))] == offsets[:] == whole
        assert offsets[-1:] == whole[-1:] and (not ids or offsets[-1] == whole[-1])
        with pytest.raises(IndexError):
            offsets[len(ids)]
        covered = {place for start, end in offsets for place in range(start, end)}
        assert covered == set(range(len(text)))


def test_bytes_are_bytes(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    for text in ("", "plain", "Zürich 😀\n\x00", "".join(map(chr, range(0x300)))):
        assert tokenizer.encode(text) == list(text.encode())
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<bos><eos><pad>") == [256, 257, 258]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (256, 257, 258, 259)
    assert tokenizer.chat_template is None and not tokenizer.adds_bos
    tokenizer.save(tmp_path)
    assert_same(tokenizer, AutoTokenizer.from_pretrained(tmp_path))
    read = from_folder(tmp_path)
    assert read is not None and read.fingerprint() == tokenizer.fingerprint()


def test_templates_are_found_where_transformers_finds_them(tmp_path: Path) -> None:
    write(tmp_path, bpe(), {**NAMES, "chat_template": "config"})

    def both() -> tuple[Any, Any]:
        ours, theirs = from_folder(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
        return ours, theirs.get_chat_template(tools=None), theirs.get_chat_template(tools=[{}])  # type: ignore

    ours, plain, tools = both()  # type: ignore
    assert (ours.chat_template, ours.tool_template or ours.chat_template) == (plain, tools) == ("config", "config")
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    write(tmp_path, bpe(), {**NAMES, "chat_template": named})
    ours, plain, tools = both()  # type: ignore
    assert (ours.chat_template, ours.tool_template) == (plain, tools) == ("a", "b")
    (tmp_path / "chat_template.jinja").write_text("file\n", encoding="utf-8")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools", encoding="utf-8")
    ours, plain, tools = both()  # type: ignore
    assert (ours.chat_template, ours.tool_template) == (plain, tools) == ("file\n", "tools")
    ours.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs.chat_template == {"default": "file\n", "tool_use": "tools"}


def test_the_fingerprint_tells_what_decides_ids() -> None:
    same, names = FastTokenizer(bpe(), NAMES), {**NAMES, "model_max_length": 7}
    others = [
        FastTokenizer(bpe(), NAMES, "x"),
        FastTokenizer(with_bos(bpe()), NAMES),
        FastTokenizer(bpe(), {**NAMES, "mask_token": "<extra>"}),
        FastTokenizer(bpe(), {**NAMES, "split_special_tokens": True}),
    ]
    assert FastTokenizer(bpe(), names).fingerprint() == same.fingerprint()
    assert len({other.fingerprint() for other in [same, *others]}) == 1 + len(others)


SP_CONFIG = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def llama_2(folder: Path) -> None:
    """A tokenizer.json as Llama 2 has it: spaces marked in a normalizer, unknown characters in bytes."""
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(CORPUS * 20, trainers.BpeTrainer(vocab_size=420, special_tokens=pieces))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    pipeline = json.loads(backend.to_str())
    pipeline["added_tokens"] = pipeline["added_tokens"][:3]
    (folder / "tokenizer.json").write_text(json.dumps(pipeline), encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "model_type"),
    [
        ({"legacy": True}, None),
        ({"legacy": True, "tokenizer_class": "LlamaTokenizerFast"}, "llama"),
        ({"legacy": None}, "llama"),
        ({"add_prefix_space": False}, "llama"),
        ({"legacy": True}, "mistral"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, None),
    ],
)
def test_llama_2_gives_what_transformers_gives(flags: dict[str, Any], model_type: str | None, tmp_path: Path) -> None:
    llama_2(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**SP_CONFIG, **flags}), encoding="utf-8")
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    ours, theirs = from_folder(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours is not None
    ours.save(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in [" a\n\n\tb", "  the", "<s>the</s> dog", "日本</s>a 😀", *TEXTS]:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids == saved(text)["input_ids"], text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text


def train_sentencepiece(path: Path, **options: Any) -> Path:
    model = io.BytesIO()
    defaults = {
        "vocab_size": 330,
        "model_type": "bpe",
        "byte_fallback": True,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    defaults |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20), model_writer=model, **{**defaults, **options}
    )
    (path / "tokenizer.model").write_bytes(model.getvalue())
    return path / "tokenizer.model"


@pytest.mark.parametrize(
    "flags", [{}, {"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True}, {"legacy": True}]
)
def test_sentencepiece_gives_what_transformers_gives(flags: dict[str, bool], tmp_path: Path) -> None:
    train_sentencepiece(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**SP_CONFIG, **flags}), encoding="utf-8")
    ours, theirs = from_folder(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(ours, SentencePieceTokenizer)
    texts = ["the fox", "Zürich 😀", "<s>the fox</s>", "the</s>dog", "日本</s>a", ""]
    # With `legacy`, SentencePiece adds its space even before another one; transformers' conversion does not.
    texts += [] if "legacy" in flags else ["<s>the</s> dog\n\nx", "日本 </s> a"]
    for text in texts:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    ours.save(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved("<s>the fox")["input_ids"] == theirs("<s>the fox")["input_ids"]
    again = from_folder(tmp_path / "saved")
    assert again is not None and again.fingerprint() == ours.fingerprint()
    again.release()
    assert again.encode("<s>the fox") == ours.encode("<s>the fox")


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_gives_what_the_library_gives(model_type: str, prefix: bool, tmp_path: Path) -> None:
    options = {"byte_fallback": model_type == "bpe", "vocab_size": 330 if model_type == "bpe" else 80}
    path = train_sentencepiece(tmp_path, model_type=model_type, add_dummy_prefix=prefix, **options)
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = SentencePieceTokenizer(path, {"extra_special_tokens": ["<extra>"]})
    for text in TEXTS[:12]:
        if not any(token in text for token in ("<s>", "</s>", "<extra>")):
            assert tokenizer.encode(text) == library.encode(text)
        if library.unk_id() not in library.encode(text):
            assert tokenizer.decode(library.encode(text)) == library.decode(library.encode(text))
    assert tokenizer.vocab_size == library.vocab_size() + 1
    ids, offsets = tokenizer.encode_with_offsets("the<extra>fox 😀")
    assert ids[ids.index(tokenizer.vocab_size - 1)] == library.vocab_size()
    assert offsets[ids.index(library.vocab_size())] == (3, 10) and offsets[-1][1] == len("the<extra>fox 😀")
    assert tokenizer.decode(ids, skip_special=False) == (
        "the<extra>fox 😀" if model_type == "bpe" else "the<extra>fox <unk>"
    )
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("the fox") == tokenizer.encode("the fox")


def test_sources(tmp_path: Path) -> None:
    write(tmp_path, bpe(), NAMES)
    (tmp_path / "own.jinja").write_text("{{ 1 }}", encoding="utf-8")
    tokenizer = Auto(path=".", chat_template="own.jinja").load(None, tmp_path)
    assert tokenizer.chat_template == "{{ 1 }}" and tokenizer.encode("the") == FastTokenizer(bpe(), NAMES).encode("the")
    tokenizer.save(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == "{{ 1 }}"
    assert Bytes().load(None, tmp_path).fingerprint() == ByteTokenizer().fingerprint()
    assert Bytes(chat_template="own.jinja").load(None, tmp_path).chat_template == "{{ 1 }}"
    for source, why in (
        (Auto(), "brings no tokenizer"),
        (Auto(path="nowhere"), "no such folder"),
        (Auto(path=".", chat_template="no.jinja"), "cannot be read"),
    ):
        with pytest.raises(UserError, match=why):
            source.load(None, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("tokenizer.json", b'{"version":\n', "not JSON"),
        ("tokenizer.json", b"[]", "expected a JSON object"),
        ("tokenizer.json", b"{}", "not a tokenizer"),
        ("tokenizer.json", b"\xff", "not UTF-8"),
        ("tokenizer.model", b"IQ== 0\n", "not a SentencePiece model"),
        ("vocab.json", b"{}", "only tokenizer.json"),
    ],
)
def test_damage_is_named(name: str, content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=why) as caught:
        from_folder(tmp_path)
    assert caught.value.problems[0].file == str(tmp_path / name)


def test_no_files_no_tokenizer(tmp_path: Path) -> None:
    assert from_folder(tmp_path) is None
    with pytest.raises(ValueError, match="no token has the id"):
        ByteTokenizer().token(259)
