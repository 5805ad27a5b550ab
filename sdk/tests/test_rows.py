"""Rows of data files: what is read, where it is said to come from, and what is refused."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from ptsdk.data.example import Row
from ptsdk.data.rows import fingerprint, locate, read, rename
from ptsdk.errors import UserError

ROWS: list[dict[str, Any]] = [{"a": 1, "b": "ü\u2028x"}, {"a": 2, "b": "y\nz"}]


def values(path: str, base: Path) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read(path, base)]


def places(path: str, base: Path) -> list[str]:
    return [row.place.rpartition("/")[2] for row in read(path, base)]


def write_jsonl(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_jsonl(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl")
    assert values("x.jsonl", tmp_path) == ROWS and places("x.jsonl", tmp_path) == ["x.jsonl:1", "x.jsonl:2"]
    assert values(str(path), Path("/")) == ROWS
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert values("x.jsonl", tmp_path) == ROWS and places("x.jsonl", tmp_path) == ["x.jsonl:1", "x.jsonl:3"]


def test_json_is_a_list_or_lines(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(ROWS, indent=2), encoding="utf-8")
    assert values("x.json", tmp_path) == ROWS and places("x.json", tmp_path) == ["x.json:2", "x.json:6"]
    (tmp_path / "x.json").write_text(f" \n[{json.dumps(ROWS[0])}\n,\n\n{json.dumps(ROWS[1])}]\n", encoding="utf-8")
    assert values("x.json", tmp_path) == ROWS and places("x.json", tmp_path) == ["x.json:2", "x.json:5"]
    (tmp_path / "x.json").write_text("[]", encoding="utf-8")
    assert values("x.json", tmp_path) == []
    write_jsonl(tmp_path / "lines.json")
    assert values("lines.json", tmp_path) == ROWS


def test_csv(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('a,b\n1,"two\nlines, ""quoted"""\n\n2,ü\n', encoding="utf-8")
    assert values("x.csv", tmp_path) == [{"a": "1", "b": 'two\nlines, "quoted"'}, {"a": "2", "b": "ü"}]
    assert places("x.csv", tmp_path) == ["x.csv:2", "x.csv:5"]
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2,3\n", encoding="utf-8")
    assert values("x.tsv", tmp_path) == [{"a": "1", "b": "2,3"}]


def test_parquet(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "x"}], "n": i} for i in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert values("x.parquet", tmp_path) == rows and places("x.parquet", tmp_path)[2] == "x.parquet:3"


def test_folders_globs_and_compression(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d" / "b.jsonl", ROWS[1:])
    write_jsonl(tmp_path / "d" / "a" / "a.jsonl", ROWS[:1])
    (tmp_path / "d" / "README.md").write_text("no data", encoding="utf-8")
    assert values("d", tmp_path) == ROWS
    assert values("d/**/*.jsonl", tmp_path) == ROWS
    assert values("d/*.jsonl", tmp_path) == ROWS[1:]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress((tmp_path / "d" / "b.jsonl").read_bytes()))
    assert values("x.jsonl.gz", tmp_path) == ROWS[1:]


def test_urls_are_read_by_fsspec(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/x.jsonl", write_jsonl(tmp_path / "x.jsonl").read_bytes())
    assert values("memory://bucket/x.jsonl", tmp_path) == ROWS
    assert values("memory://bucket/*.jsonl", tmp_path) == values("memory://bucket", tmp_path) == ROWS
    assert fingerprint("memory://bucket/x.jsonl", tmp_path) == fingerprint("x.jsonl", tmp_path)
    assert next(iter(read("memory://bucket/x.jsonl", tmp_path))).place == "memory:///bucket/x.jsonl:1"


FAULTS: list[tuple[str, bytes, int, str]] = [
    ("x.jsonl", b'{"a": 1}\n{"a": \n', 2, "not JSON"),
    ("x.jsonl", b'{"a": 1}\n\n[1]\n', 3, "must be an object, found list"),
    ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', 2, "not UTF-8"),
    ("x.jsonl", b'{"a": 1}\n\0\0\0\0', 2, "NUL"),
    ("x.jsonl", b'{"a": 1} {"a": 2}\n', 1, "not JSON"),
    ("x.json", b'[{"a": 1},\n{"a": }]', 2, "not JSON"),
    ("x.json", b'[{"a": 1}\n{"a": 2}]', 2, "expected `,`"),
    ("x.json", b'[{"a": 1},\n 3]', 2, "must be an object"),
    ("x.json", b'[{"a": 1},\n', 2, "not JSON"),
    ("x.json", b'[{"a": 1}]\n{}', 1, "follows the list"),
    ("x.csv", b"a,b\n1,2\n3\n", 3, "1 fields, the header has 2"),
    ("x.csv", b'a,b\n1,"2" x\n', 2, "not CSV"),
    ("x.csv", b"a,a\n1,2\n", 1, "column names"),
    ("x.parquet", b"PAR1 no", 1, "not Parquet"),
    ("x.jsonl", b'{"a": 1}\n{"a": ' + b"9" * 5000 + b"}\n", 2, "too many digits"),
    ("x.jsonl", b'{"a": 1}\n' + b"[" * 200_000 + b"\n", 2, "nested too deep"),
    ("x.json", b'[{"a": 1},\n' + b"[" * 200_000 + b"]", 2, "nested too deep"),
    ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9], 1, "cannot be read"),
    ("x.jsonl.xz", lzma.compress(b'{"a": 1}\n' * 99)[:-20], 1, "cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "line", "why"), FAULTS, ids=[f"{i}-{f[0]}" for i, f in enumerate(FAULTS)])
def test_a_bad_line_is_named(name: str, content: bytes, line: int, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    place = f"{tmp_path / name}:{line}"
    try:
        faults = [(row.place, row.fault) for row in read(name, tmp_path) if row.fault]
    except UserError as error:
        faults = [(f"{problem.file}:{problem.line}", problem.message) for problem in error.problems]
    ((found, message),) = faults
    assert found == place
    assert why in message


def test_a_line_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    content = b'{"a": 1}\nx\n{"a": "\xff"}\n[1]\n{"a": 2}\n'
    (tmp_path / "x.jsonl").write_bytes(content)
    found = [(row.values, bool(row.fault)) for row in read("x.jsonl", tmp_path)]
    assert found == [({"a": 1}, False), ({}, True), ({}, True), ({}, True), ({"a": 2}, False)]
    (tmp_path / "x.csv").write_text("a,b\n1\n2,3\n")
    assert [row.values for row in read("x.csv", tmp_path)] == [{}, {"a": "2", "b": "3"}]


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for path, why in (
        ("no.jsonl", "no such file"),
        ("empty", "holds no data file"),
        ("*.jsonl", "no data file matches"),
        ("x.txt", "cannot read .txt"),
        ("memory://none/x.jsonl", "no data file matches"),
        ("nosuch://x.jsonl", "cannot open"),
    ):
        with pytest.raises(UserError, match=why):
            locate(path, tmp_path)
    with pytest.raises(UserError, match="`split` is for"):
        list(read("x.jsonl", tmp_path, "test"))


def test_columns_are_renamed() -> None:
    row = Row({"q": 1, "a": 2, "more": 3, "prompt": 4}, "f.jsonl:7")
    assert rename(row, {"prompt": "q", "completion": "a"}).values == {"prompt": 1, "completion": 2, "more": 3}
    assert rename(row, {}) is row
    lacking = rename(row, {"prompt": "zz"})
    assert (lacking.values, lacking.place) == ({}, "f.jsonl:7")
    assert "no column zz" in lacking.fault and "q, a, more" in lacking.fault


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a" / "x.jsonl")
    write_jsonl(tmp_path / "b" / "y.jsonl")
    write_jsonl(tmp_path / "b" / "z.jsonl", ROWS[:1])
    first = fingerprint("a/x.jsonl", tmp_path)
    assert first == fingerprint("b/y.jsonl", tmp_path) == fingerprint("x.jsonl", tmp_path / "a")
    assert len({first, fingerprint("b/z.jsonl", tmp_path), fingerprint("b", tmp_path)}) == 3


def test_a_hub_data_set_is_read_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert values("hf://datasets/org/name", tmp_path) == ROWS
    assert places("hf://datasets/org/name/config:test", tmp_path) == ["config:test:1", "config:test:2"]
    assert asked == [("org/name", None, "train"), ("org/name", "config", "test")]
    assert len(fingerprint("hf://datasets/org/name", tmp_path, "test")) == 64
    with pytest.raises(UserError, match="names a split"):
        list(read("hf://datasets/org/name:test", tmp_path, "train"))


def test_rows_are_nested_so_deep_and_no_deeper(tmp_path: Path) -> None:
    """The limit is ours: Python's own depends on how deep the process stands that asks."""
    for depth, fault in ((200, ""), (201, "nested too deep")):
        text = '{"a": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}"
        for name, content in (("a.jsonl", text), ("a.json", f"[{text}]")):
            (tmp_path / name).write_text(content)
            (row,) = read(name, tmp_path)
            assert bool(row.fault) == bool(fault) and fault in row.fault
