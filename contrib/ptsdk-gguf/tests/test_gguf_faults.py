"""Damaged and unsupported files are refused with their name and a reason."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptsdk.errors import UserError
from ptsdk_gguf.format import GGUF
from ptsdk_gguf.header import read_header


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory, write_llama: Any, llama: Any, sentencepiece_fields: Any) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "m.gguf"
    write_llama(path, llama(len(sentencepiece_fields["tokenizer.ggml.tokens"])), sentencepiece_fields)
    data: bytes = path.read_bytes()
    return data


def refused(path: Path, data: bytes, reason: str) -> None:
    path.write_bytes(data)
    with pytest.raises(UserError, match=reason) as caught:
        GGUF().open(path)
    problem = caught.value.problems[0]
    assert problem.file == str(path)
    assert problem.hint


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, intact: bytes) -> None:
    for length in [4, 7, 20, 24, 60, 200, 5000, len(intact) // 2, len(intact) - 32]:
        refused(tmp_path / "cut.gguf", intact[:length], "not a readable GGUF file")
    refused(tmp_path / "cut.gguf", b"", "cannot be opened")


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [(0, b"GGML", "does not start"), (4, struct.pack(">I", 3), "version"), (8, struct.pack("<Q", 2**60), "ends at")],
)
def test_a_damaged_head_is_refused(tmp_path: Path, intact: bytes, at: int, value: bytes, reason: str) -> None:
    refused(tmp_path / "bad.gguf", intact[:at] + value + intact[at + len(value) :], reason)


def test_a_huge_array_is_refused_before_memory_is_taken(tmp_path: Path, intact: bytes) -> None:
    key = b"tokenizer.ggml.scores"
    at = intact.index(key) + len(key) + 8
    refused(tmp_path / "bad.gguf", intact[:at] + struct.pack("<Q", 2**50) + intact[at + 8 :], "within an array")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, "yarn"),
        ({"split.count": 2}, "one of 2 parts"),
    ],
)
def test_what_is_not_read_is_named(
    tmp_path: Path, write_llama: Any, llama: Any, sentencepiece_fields: Any, fields: dict[str, Any], reason: str
) -> None:
    model = llama(len(sentencepiece_fields["tokenizer.ggml.tokens"]))
    path = write_llama(tmp_path / "m.gguf", model, {**sentencepiece_fields, **fields})
    with pytest.raises(UserError, match=reason):
        GGUF().open(path)


def test_a_tensor_of_another_family_is_refused(
    tmp_path: Path, write_llama: Any, llama: Any, sentencepiece_fields: Any
) -> None:
    model = llama(len(sentencepiece_fields["tokenizer.ggml.tokens"]))
    extra = {"blk.0.ffn_gate_exps.weight": np.zeros((2, 4), dtype=np.float32)}
    path = write_llama(tmp_path / "m.gguf", model, sentencepiece_fields, extra=extra)
    with pytest.raises(UserError, match="ffn_gate_exps"):
        GGUF().open(path)


def test_an_unknown_family_is_refused(tmp_path: Path, intact: bytes) -> None:
    refused(tmp_path / "m.gguf", intact.replace(b"llama", b"lemma"), "general.architecture = 'lemma'")


def test_a_tokenizer_that_is_not_read_is_refused_when_it_is_asked_for(
    tmp_path: Path, write_llama: Any, llama: Any, byte_level_fields: Any
) -> None:
    fields = {**byte_level_fields, "tokenizer.ggml.pre": "strange"}
    path = write_llama(tmp_path / "m.gguf", llama(len(fields["tokenizer.ggml.tokens"])), fields)
    checkpoint = GGUF().open(path)
    with pytest.raises(UserError, match="strange"):
        checkpoint.tokenizer()


def test_format_is_told_by_its_first_bytes(tmp_path: Path, intact: bytes) -> None:
    (tmp_path / "m.bin").write_bytes(intact)
    (tmp_path / "other.gguf").write_bytes(b"PK")
    assert GGUF().matches(tmp_path / "m.bin")
    assert not GGUF().matches(tmp_path / "other.gguf")
    assert not GGUF().matches(tmp_path)
    assert not GGUF().matches(tmp_path / "missing.gguf")


def test_alignment_of_the_file_is_followed(
    tmp_path: Path, write_llama: Any, llama: Any, sentencepiece_fields: Any
) -> None:
    model = llama(len(sentencepiece_fields["tokenizer.ggml.tokens"]))
    header = read_header(write_llama(tmp_path / "m.gguf", model, sentencepiece_fields))
    assert all(info.start % 32 == 0 for info in header.tensors.values())
