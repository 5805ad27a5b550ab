"""YAML with positions: what a job file may hold, and where each fault of it is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptsdk.errors import UserError
from ptsdk.job.source import MAX_BYTES, parse, read_source


def problems(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(UserError) as caught:
        parse(text, "job.yaml")
    assert caught.value.exit_code == 2
    assert all(problem.file == "job.yaml" for problem in caught.value.problems)
    return [(problem.line, problem.path, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("0x1f", 31),
        ("0o17", 15),
        ("017", 17),
        ("-.inf", -math.inf),
        ("~", None),
        ("", None),
        ("true", True),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("!!str 5", "5"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse(f"- {text}", "x")[0][0]
    assert found == value
    assert type(found) is type(value)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="ascii", exclude_characters="\0"))
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz_. ", min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_json_is_read_as_json_reads_it(value: Any) -> None:
    text = json.dumps(value)
    assert parse(text, "x")[0] == json.loads(text)


def test_every_key_and_item_has_its_line() -> None:
    text = "# a comment\na: 1\nb:\n  c:\n    - x\n    - d: 2\n\n  e: {f: 1,\n      g: 2}\n"
    lines = parse(text, "x")[1]
    assert lines == {
        ("a",): 2, ("b",): 3, ("b", "c"): 4, ("b", "c", 0): 5, ("b", "c", 1): 6, ("b", "c", 1, "d"): 6,
        ("b", "e"): 8, ("b", "e", "f"): 8, ("b", "e", "g"): 9,
    }  # fmt: skip


def test_all_duplicate_keys_are_told_with_the_line_of_the_first() -> None:
    found = problems("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert [(line, path) for line, path, _ in found] == [(2, "b.c"), (3, "a")]
    assert "line 1" in found[1][2]


@pytest.mark.parametrize(
    ("text", "line", "path", "part"),
    [
        ("a: 1\nb:\n\tc: 2\n", 3, "", "tab"),
        ("a: 1\nb: [1, 2\n", 3, "", "not YAML"),
        ("a: 1\nb: x: y\n", 2, "", "key: value"),
        ('a: "open\n', 2, "", "not YAML"),
        ("a: *nothing\n", 1, "", "alias"),
        ("a: 1\n---\nb: 2\n", 2, "", "more than one"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "a", "tag"),
        ("a: 1\nb: !secret x\n", 2, "b", "!secret"),
        ("a: !!int x\n", 1, "a", "!!int"),
        ("a: !!set {x, y}\n", 1, "a", "!!set"),
        ("1: x\n", 1, "1", "string"),
        ("? [a, b]\n: 1\n", 1, "", "string"),
        ("a: {{ x }}\n", 1, "a", "template"),
        ("a: &b {c: 1}\nd:\n  <<: *b\n", 3, "d.<<", "merge"),
        ("a: &a [*a]\n", 1, "", "deep"),
        ("a: 1\nb: x\0y\n", 2, "", "U+0000"),
        ("x: " + "9" * 5000, 1, "x", "!!int"),
        ("a: " + "[" * 5000, 1, "", "deep"),
        ("a:\n" + "".join(" " * i + "- \n" for i in range(60)), 50, "", "deep"),
    ],
)
def test_faults_have_a_line_and_a_path(text: str, line: int, path: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text, "job.yaml")
    problem = caught.value.problems[0]
    assert part in problem.message + problem.hint
    assert problem.path == path
    assert problem.line == line or part in ("not YAML", "deep", "more than")
    assert 1 <= problem.line <= text.count("\n") + 1


def test_an_alias_bomb_is_refused_fast() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    assert "aliases" in problems_hint(bomb)


def problems_hint(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(text, "job.yaml")
    return caught.value.problems[0].hint


def test_aliases_are_allowed() -> None:
    value, lines = parse("a: &x {b: 1}\nc: *x\n", "x")
    assert value == {"a": {"b": 1}, "c": {"b": 1}}
    assert lines["c", "b"] == 1


@pytest.mark.parametrize(
    ("data", "line", "part"),
    [
        (b"", 1, "empty"),
        (b"# nothing\n", 1, "empty"),
        (b"- a\n- b\n", 1, "mapping"),
        (b"just text", 1, "mapping"),
        (b"a: 1\nb: \xff\n", 2, "UTF-8"),
        (b"a: 1\x00", 1, "U+0000"),
        (b"x" * (MAX_BYTES + 1), 1, "larger"),
    ],
)
def test_files_that_are_no_job(tmp_path: Path, data: bytes, line: int, part: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_source(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.path) == (str(path), line, "")
    assert part in problem.message


@pytest.mark.parametrize("name", ["none.yaml", ".", "a/b.yaml"])
def test_paths_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        read_source(tmp_path / name)
    (problem,) = caught.value.problems
    assert problem.message.startswith("cannot read")
    assert problem.line == 1


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbfapi: 1\n")
    assert read_source(path).values == {"api": 1}


def test_places_fall_back_to_the_section_around(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("api: 1\nmethod:\n  use: sft\n")
    source = read_source(path)
    assert source.problem(("method", "beta"), "missing").line == 2
    assert source.problem(("method", "use"), "typo").line == 3
    assert source.problem(("data",), "missing").line == 1
