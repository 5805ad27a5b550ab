from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ptsdk.builtin.datasets import Prompts
from ptsdk.builtin.tokenizers import Bytes
from ptsdk.cli.data import pieces, read
from ptsdk.cli.main import main
from ptsdk.data.example import Document
from ptsdk.data.tokenizers import ByteTokenizer

ROWS = [
    {"prompt": "1+1=", "completion": "2"},
    {"prompt": "say [hi] ", "completion": "hi"},
    {"prompt": "a prompt that is far too long ", "completion": "gone"},
    {"prompt": "2+2=", "completion": "4"},
    {"question": "?"},
]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "1000")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "job.yaml").write_text(
        """
api: 1
model: {use: tiny, config: {}}
tokenizer: bytes
data: {train: {use: instruct, path: train.jsonl}, max_length: 16, on_bad_row: skip}
method: sft
output_dir: run
"""
    )
    return tmp_path / "job.yaml"


def call(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["data", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_rows_are_shown_with_their_supervised_part_in_brackets(job, capsys):
    code, out, _ = call(capsys, job, "--rows", 2)
    assert code == 0
    assert "train.jsonl:1: 6 tokens, 2 supervised\n1+1=[[2<eos>]]\n" in out
    assert "say [hi] [[hi<eos>]]\n" in out
    assert "train.jsonl:4" not in out


def test_what_became_of_the_other_rows_is_told(job, capsys):
    _, out, _ = call(capsys, job)
    assert "5 read, 3 used" in out
    assert "24, of which 7 supervised (29.2%)" in out
    assert "truncated  1 to 16 tokens: " in out
    assert "1 no supervised tokens left after truncation: " in out
    assert "train.jsonl:5: expected" in out
    assert "packing" not in out


def test_supervised_tokens_are_green_on_a_terminal(job, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    _, out, _ = call(capsys, job, "--rows", 1)
    assert "\x1b[2m1+1=\x1b[0m\x1b[1;32m2<eos>\x1b[0m" in out
    assert "[[" not in out


def test_json_is_one_document_with_everything(job, capsys):
    code, out, _ = call(capsys, job, "--rows", 1, "--json", "data.packing=true")
    described = json.loads(out)
    assert code == 0
    assert described["split"] == "train"
    assert described["report"]["rows"] == 5
    assert described["report"]["packing"] == {"capacity": 16, "sequences": 2, "efficiency": 24 / 32}
    [row] = described["rows"]
    assert row["place"].endswith("train.jsonl:1")
    assert row["documents"] == [
        {"tokens": [*b"1+1=2", 257], "supervised": [False] * 4 + [True] * 2, "text": "1+1=2<eos>"}
    ]


def test_overrides_and_the_validation_split_are_read(job, capsys):
    (job.parent / "val.jsonl").write_text(json.dumps({"prompt": "v", "completion": "w"}) + "\n")
    validation = "data.validation={use: instruct, path: val.jsonl}"
    code, out, _ = call(capsys, job, validation, "--split", "validation")
    assert code == 0
    assert "v[[w<eos>]]" in out


def test_a_split_the_job_lacks_is_refused(job, capsys):
    code, out, err = call(capsys, job, "--split", "validation")
    assert (code, out) == (2, "")
    assert "data.validation: the job has no validation data" in err


def test_bad_rows_end_the_command_where_the_job_refuses_them(job, capsys):
    code, out, err = call(capsys, job, "data.on_bad_row=error")
    assert (code, out) == (2, "")
    assert "train.jsonl:5: " in err


def test_prompts_of_a_policy_method_are_kept(tmp_path):
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "why?"}) + "\n")
    section = SimpleNamespace(
        train=(Prompts(path="prompts.jsonl"),), max_length=9, on_long_row="error", on_bad_row="error"
    )
    job: Any = SimpleNamespace(
        data=section, model=SimpleNamespace(path=None), tokenizer=Bytes(), base=tmp_path, objective="policy"
    )
    _, encoded = read(job, "train", cast(Any, None))
    assert encoded.store[0].documents[0].tokens == tuple(b"why?")


def test_data_cannot_steer_the_terminal(job, capsys):
    (job.parent / "train.jsonl").write_text(json.dumps({"prompt": "\x1b[2J", "completion": "x"}) + "\n")
    _, out, _ = call(capsys, job)
    assert "\x1b" not in out


def test_pieces_add_up_to_the_text():
    tokens = ByteTokenizer().encode("é è")
    at_a_letter = Document(tuple(tokens), (False, False, True, True, True))
    assert list(pieces(at_a_letter, ByteTokenizer())) == [("é", False), (" è", True)]
    inside_a_letter = Document(tuple(tokens), (False, True, True, False, False))
    assert list(pieces(inside_a_letter, ByteTokenizer())) == [("\ufffd", False), ("\ufffd ", True), ("è", False)]


def test_a_piece_keeps_the_space_that_decoding_it_alone_would_eat():
    class Eating(ByteTokenizer):
        def decode(self, ids: list[int], *, skip_special: bool = True) -> str:
            return super().decode(ids, skip_special=skip_special).lstrip(" ")

    document = Document(tuple(b"ab cd"), (False, False, True, True, True))
    assert list(pieces(document, Eating())) == [("ab", False), (" cd", True)]
