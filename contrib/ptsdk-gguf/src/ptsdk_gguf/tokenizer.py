"""The tokenizer that a GGUF file carries: pieces with scores (SentencePiece) or byte-level BPE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from ptsdk.data.tokenizers import FastTokenizer
from ptsdk.errors import Problem, UserError
from ptsdk_gguf.architecture import Pieces
from ptsdk_gguf.header import Header

BLANK = "\u2581"
"""What SentencePiece writes for a space."""
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""Types of tokens. The last two stand for their exact text; only control tokens are special."""
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
OWN_TOKENIZER = "give the run a tokenizer of its own: tokenizer: {path: ...}"

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {"llama-bpe": LLAMA3_SPLIT, "llama3": LLAMA3_SPLIT, "llama-v3": LLAMA3_SPLIT, "gpt-2": None}
"""How text is cut before bytes are merged, by ``tokenizer.ggml.pre``; None is GPT-2's own way."""


def read_tokenizer(header: Header, pieces: Pieces) -> FastTokenizer | None:
    """The tokenizer, None where the file has none.

    Raises:
        UserError: a kind of tokenizer that is not read here.
    """
    metadata = header.metadata
    tokens: list[str] | None = metadata.get("tokenizer.ggml.tokens")
    if tokens is None:
        return None
    match metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "gpt-2"):
        case "llama", _:
            backend, adds_bos = _sentencepiece(metadata, pieces), True
        case "gpt2", pre if pre in SPLITS:
            backend, adds_bos = _byte_level(metadata, SPLITS[pre]), SPLITS[pre] == LLAMA3_SPLIT
        case kind, pre:
            message = f"tokenizer.ggml.model = {kind!r} with tokenizer.ggml.pre = {pre!r} is not read"
            raise UserError(Problem(message, OWN_TOKENIZER, str(header.path)))
    _add_tokens(backend, tokens, metadata.get("tokenizer.ggml.token_type", ()))
    return FastTokenizer(backend, _config(metadata, tokens, adds_bos), _chat_templates(metadata))


def _sentencepiece(metadata: Mapping[str, Any], pieces: Pieces) -> tokenizers.Tokenizer:
    """BPE over pieces with U+2581 for spaces; what no piece covers falls back to bytes."""
    tokens = metadata["tokenizer.ggml.tokens"]
    if pieces.escaped_blanks:
        tokens = [token.replace(" ", BLANK) if " " in token and not token.strip() else token for token in tokens]
    vocab = {token: index for index, token in enumerate(tokens)}
    ranks = [-place for place in range(len(tokens))] if pieces.ranked_by_place else metadata["tokenizer.ggml.scores"]
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    model = models.BPE(
        vocab=vocab,
        merges=_merges(metadata) or implied_merges(vocab, dict(zip(tokens, ranks, strict=True))),
        unk_token=None if unknown is None else tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = tokenizers.Tokenizer(model)
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=BLANK, prepend_scheme="first", split=False)
        steps.append(decoders.Strip(content=" ", left=1))
    else:
        backend.normalizer = normalizers.Replace(" ", BLANK)
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The file's own merges, ``left right`` each."""
    pairs = (merge.split(" ", 1) for merge in metadata.get("tokenizer.ggml.merges", ()))
    return [(left, right) for left, right in pairs]


def implied_merges(vocab: Mapping[str, int], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Merges that make the pieces of a vocabulary, best first.

    Every way to cut a piece into two pieces is a merge. Those of the piece with the highest score
    come first; among equal scores those with the longest left, then right part.
    """
    merges: list[tuple[str, str]] = []
    for _, tied in groupby(sorted(vocab, key=scores.__getitem__, reverse=True), key=scores.__getitem__):
        cuts = [
            (piece[:cut], piece[cut:])
            for piece in tied
            for cut in range(len(piece) - 1, 0, -1)
            if piece[:cut] in vocab and piece[cut:] in vocab
        ]
        merges += sorted(cuts, key=lambda pair: (-len(pair[0]), -len(pair[1])))
    return merges


def _byte_level(metadata: Mapping[str, Any], split: str | None) -> tokenizers.Tokenizer:
    """BPE over bytes, spelled in GPT-2's alphabet."""
    vocab = {token: index for index, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    # Llama 3 takes a word that is a token as it is, even where no merges lead to it.
    model = models.BPE(vocab=vocab, merges=_merges(metadata), ignore_merges=split == LLAMA3_SPLIT)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    if split is not None:
        cut = pre_tokenizers.Split(Regex(split), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, backend.pre_tokenizer])
    backend.decoder = decoders.ByteLevel()
    return backend


def _add_tokens(backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Keep control and user-defined tokens whole."""
    vocab = backend.get_vocab(with_added_tokens=False)
    kinds = [(token, kind) for token, kind in zip(tokens, types, strict=False) if token in vocab]
    control = [AddedToken(token, special=True, normalized=False) for token, kind in kinds if kind == CONTROL]
    own = [AddedToken(token, special=False, normalized=False) for token, kind in kinds if kind == USER_DEFINED]
    backend.add_special_tokens(control)
    backend.add_tokens(own)


def _config(metadata: Mapping[str, Any], tokens: Sequence[str], adds_bos: bool) -> dict[str, Any]:
    """The keys of tokenizer_config.json."""
    ids = {ours: metadata.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in SPECIAL.items()}
    return {
        **{name: tokens[index] for name, index in ids.items() if index is not None},
        "add_bos_token": metadata.get("tokenizer.ggml.add_bos_token", adds_bos),
        "add_eos_token": metadata.get("tokenizer.ggml.add_eos_token", False),
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.get(f"{metadata['general.architecture']}.context_length"),
    }


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name; the plain one is ``default``."""
    prefix = "tokenizer.chat_template"
    named = {key.removeprefix(f"{prefix}."): text for key, text in metadata.items() if key.startswith(f"{prefix}.")}
    return {**named, **({"default": metadata[prefix]} if prefix in metadata else {})}
