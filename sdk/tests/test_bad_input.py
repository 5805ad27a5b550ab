"""Whatever a job file or a data file holds: no traceback, a place, exit code 2, and nothing written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptsdk.builtin.datasets import Prompts
from ptsdk.builtin.tokenizers import Bytes
from ptsdk.cli.main import main
from ptsdk.data.example import BadRow

JOB = """\
api: 1
model: {use: tiny, config: {hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1}}
tokenizer: {use: bytes, chat_template: chat.jinja}
data:
  train: {use: instruct, path: train.jsonl}
  max_length: 32
method: sft
loggers: [jsonl]
train: {steps: 1, batch_size: 2}
output_dir: run
"""
PLAIN = JOB.replace("{use: bytes, chat_template: chat.jinja}", "bytes")
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
ROW = '{"prompt": "a", "completion": "b"}\n'
LIMITS = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PLACE = re.compile(r"^(?:ptsdk: )?(job\.yaml|override|train\.[\w.]+):(\d+): ")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text(ROW)
    Path("chat.jinja").write_text(CHAT)
    Path("job.yaml").write_text(JOB)
    yield tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """A command that must not change a file; its exit code, stdout and stderr."""
    before = sorted(os.listdir())
    code = main(["--safe", *arguments])
    shown = capsys.readouterr()
    assert code in (0, 2), shown.err
    assert "Traceback" not in shown.err and "internal error" not in shown.err
    assert sorted(os.listdir()) == before
    return code, shown.out, shown.err


def checked(capsys: pytest.CaptureFixture[str], content: bytes) -> list[dict[str, Any]]:
    """What ``check`` finds in a job file; every fault has a place in it."""
    Path("job.yaml").write_bytes(content)
    code, out, err = call(capsys, "check", "job.yaml", "--json")
    errors: list[dict[str, Any]] = json.loads(out)["errors"]
    assert err == ""
    assert bool(errors) == (code == 2)
    lines = len(re.split(rb"\r\n|\r|\n|\xc2\x85|\xe2\x80[\xa8\xa9]", content))
    for error in errors:
        assert error["file"] == "job.yaml"
        assert 1 <= error["line"] <= lines
        assert error["message"]
    return errors


# job files

NASTY: list[Any] = [
    None, True, "", " ", "x", "../..", "a\0b", "\ud800", "x" * 5000, "${env:NOT_SET}", "${env:", "hf://a/b/c", "pkg://no",
    "file:///etc", "{{ x }}", 0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, 1e-320, float("inf"), float("nan"), [], {},
    [[]], {"use": None}, {"use": "x"}, {"use": "./x.py:Y"}, {"use": "bytes", "x": 1},
    [{"use": "text", "path": "train.jsonl"}] * 3,
    {"": ""}, [None, None],
]  # fmt: skip
values = st.sampled_from(NASTY) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*at, key)
        yield from paths(value[key], (*at, key))


PATHS = list(paths(yaml.safe_load(JOB)))


@LIMITS
@given(st.lists(st.tuples(st.sampled_from(PATHS), values), min_size=1, max_size=3))
def test_any_value_anywhere(capsys: pytest.CaptureFixture[str], changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    job = yaml.safe_load(JOB)
    for path, value in changes:
        here = job
        for key in path[:-1]:
            here = here[key] if isinstance(here, dict) and key in here else {}
        if isinstance(here, dict):
            here[path[-1]] = value
    text = json.dumps(job).replace("Infinity", ".inf").replace("NaN", ".nan")
    checked(capsys, text.encode())


@LIMITS
@given(
    st.integers(0, len(JOB)),
    st.integers(0, 12),
    st.binary(max_size=6)
    | st.sampled_from([b"&a", b"*a", b"<<: ", b"!!x ", b"? ", b"- ", b"{", b"]", b"\t", b"'", b"|", b"\0"]),
)
def test_any_damage_to_the_text(capsys: pytest.CaptureFixture[str], at: int, length: int, inserted: bytes) -> None:
    text = JOB.encode()
    checked(capsys, text[:at] + inserted + text[at + length :])


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("content", "line", "part"),
    [
        (JOB + BOMB, 11, "more than 5000 values"),
        ("a: &a [*a]\n", 1, "nested more than"),
        (JOB + "method: sft\n", 11, "duplicate key, first on line 7"),
        (JOB.encode() + b"# \xe9\n", 11, "not UTF-8"),
        (JOB.encode("utf-16"), 1, "not UTF-8"),
        (JOB + "x: \0\n", 11, "U+0000"),
        (JOB.replace("train.jsonl", '"a\\0b"'), 5, "U+0000"),
        (JOB.replace("train.jsonl", '"\\ud800"'), 5, "U+D800"),
        (JOB + '"\\ud800": 1\n', 11, "cannot be written"),
        ("a: " + "x" * 10_000_000, 1, "larger than"),
        ("a: " + "[" * 5000, 1, "nested more than"),
        ("{a: " * 5000, 1, "nested more than"),
        (JOB + "".join(f"k{i}: 1\n" for i in range(20_000)), 4988, "more than 5000 values"),
        (JOB + f"x: {'9' * 5000}\n", 11, "cannot be read as"),
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("5\n", 1, "a mapping"),
        (JOB + "---\n" + JOB, 11, "more than one YAML document"),
        ("!!python/object/apply:os.system ['x']\n", 1, "tag"),
        (JOB.replace("steps: 1", "steps: true"), 9, "expected a number, got true"),
        (JOB.replace("batch_size: 2", "batch_size: .inf"), 9, "expected a finite number"),
        (JOB.replace("batch_size: 2", f"batch_size: {10**30}"), 9, "must be < 2147483648"),
        (JOB.replace("steps: 1", "epochs: 1e300"), 9, "must be <= 1000000"),
        (JOB.replace("train.jsonl", '""'), 5, "at least 1 character"),
        (JOB.replace("train.jsonl", "x" * 5000), 5, "File name too long"),
        (JOB.replace("output_dir: run", f"output_dir: {'x' * 5000}"), 10, "no folder can have this name"),
        (JOB.replace("train.jsonl", "none.jsonl"), 5, "no such file"),
    ],
    ids=lambda value: "" if not isinstance(value, str) or len(value) > 30 else value,
)  # fmt: skip
def test_job_files_that_are_told_in_a_line(
    capsys: pytest.CaptureFixture[str], content: str | bytes, line: int, part: str
) -> None:
    errors = checked(capsys, content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    assert (line, True) in [(error["line"], part in error["message"]) for error in errors]
    code, out, err = call(capsys, "run", "job.yaml")
    assert (code, out) == (2, "")
    assert re.search(rf"job\.yaml:{line}: .*{re.escape(part)}", err)


def test_a_folder_is_no_job(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "run", ".")
    assert code == 2
    assert "cannot read the job" in err


def test_a_byte_order_mark_and_windows_lines_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, b"\xef\xbb\xbf" + JOB.replace("\n", "\r\n").encode()) == []
    Path("train.jsonl").write_bytes(b"\xef\xbb\xbf" + ROW.replace("\n", "\r\n").encode())
    assert call(capsys, "data", "job.yaml")[0] == 0


# data files

text = st.text(max_size=12) | st.sampled_from(["", " ", "\0", "\ud800", "{{", "</s>", "<bos>", "x" * 200])
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
roles = st.sampled_from(["system", "user", "assistant", "tool", "developer", "boss", "", 5, None])
calls = st.lists(junk | st.fixed_dictionaries({"function": junk | st.fixed_dictionaries({"name": junk})}), max_size=2)
messages = st.lists(
    junk
    | st.fixed_dictionaries(
        {"role": roles, "content": text | junk}, optional={"tool_calls": calls | junk, "weight": junk}
    )
    | st.fixed_dictionaries({"from": roles | junk, "value": text | junk}),
    max_size=4,
)
columns = st.sampled_from(
    ["prompt", "completion", "messages", "conversations", "text", "chosen", "rejected", "label", "tools", "instruction",
     "output", "input"]
)  # fmt: skip
rows = st.dictionaries(columns, text | messages | junk, min_size=1, max_size=5) | junk
lines = rows.map(lambda row: json.dumps(row).encode()) | st.binary(max_size=20).map(lambda b: b.replace(b"\n", b""))
KINDS = ["instruct", "chat", "text"]


def told(code: int, err: str, count: int) -> None:
    """Every fault of data has its place in the file."""
    if code == 2:
        first, *rest = (line for line in err.splitlines() if not line.startswith((" ", "and more")))
        for match in (PLACE.match(line) for line in [first, *rest]):
            assert match, err
            assert 1 <= int(match[2]) <= max(count, 1)


@LIMITS
@given(
    st.lists(lines, min_size=1, max_size=6),
    st.sampled_from(KINDS),
    st.sampled_from(["error", "skip"]),
    st.sampled_from(["truncate", "drop", "error"]),
    st.booleans(),
)
def test_any_rows(
    capsys: pytest.CaptureFixture[str], rows: list[bytes], kind: str, on_bad: str, on_long: str, template: bool
) -> None:
    Path("job.yaml").write_text(JOB if template else PLAIN)
    Path("train.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    overrides = f"data.train.use={kind}", f"data.on_bad_row={on_bad}", f"data.on_long_row={on_long}"
    code, out, err = call(capsys, "data", "job.yaml", *overrides, "--json")
    told(code, err, len(rows))
    if code == 0:
        report = json.loads(out)["report"]
        dropped = sum(entry["count"] for entry in report["dropped"])
        assert report["rows"] == report["kept"] + dropped  # every row is counted once
        assert report["kept"] and report["supervised_tokens"]
        assert all(entry["places"] for entry in report["dropped"])


@LIMITS
@given(
    st.binary(max_size=60) | st.text(max_size=40).map(str.encode),
    st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz"]),
)
def test_any_bytes(capsys: pytest.CaptureFixture[str], content: bytes, suffix: str) -> None:
    name = Path(f"train.{suffix}")
    name.write_bytes(content)
    code, _, err = call(capsys, "data", "job.yaml", f"data.train.path={name}")
    assert code == 2
    told(code, err, len(content) + 1)
    name.unlink()
    Path("train.jsonl").write_text(ROW)


LONG = json.dumps({"prompt": "x" * 100, "completion": "b"}) + "\n"
HUGE = json.dumps({"prompt": "a", "completion": "b", "x": "y" * 10_000_000}) + "\n"


@pytest.mark.parametrize(
    ("content", "line", "part", "overrides"),
    [
        ("", 1, "no rows", []),
        ("\n\n", 1, "no rows", []),
        (ROW + "\0\0\0", 2, "cut off", []),
        (ROW.encode() + b'{"prompt": "\xe9", "completion": "b"}\n', 2, "not UTF-8", []),
        (ROW.encode("utf-16"), 1, "not UTF-8", []),
        (HUGE + "x\n", 2, "not JSON", []),
        ("[" * 100_000, 1, "nested too deep", []),
        (f'{{"prompt": {"9" * 5000}}}\n', 1, "too many digits", []),
        (ROW + '{"prompt": NaN, "completion": "b"}\n', 2, "must be a non-empty list of messages, found float", []),
        (ROW + '{"prompt": true, "completion": "b"}\n', 2, "must be a non-empty list of messages, found bool", []),
        (ROW + '{"prompt": "\\ud800", "completion": "b"}\n', 2, "half a surrogate pair", []),
        (ROW + "[1]\n", 2, "a row must be an object", []),
        (ROW + '{"prompt": "a"}\n', 2, "expected `prompt` and `completion`", []),
        (LONG, 1, "no supervised tokens left after truncation", []),
        (LONG, 1, "longer than max_length", ["data.on_long_row=drop"]),
        (ROW + LONG, 2, "more than data.max_length=32", ["data.on_long_row=error"]),
        ("x\n", 1, "none of the 1 rows", ["data.on_bad_row=skip"]),
        (ROW, 1, "but the model's vocabulary has 50 ids", ["model.config.vocab_size=50"]),
        (ROW, 1, "no column x", ["data.train.columns={prompt: x}"]),
        ('{"messages": []}\n', 1, "non-empty list", ["data.train.use=chat"]),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', 1, "must be the assistant's", ["data.train.use=chat"]),
        (
            json.dumps({"messages": [{"role": r, "content": "a"} for r in ("user", "user", "assistant")]}) + "\n", 1,
            "a second user message", ["data.train.use=chat"],
        ),
        (
            json.dumps({"messages": [{"role": r, "content": "a"} for r in ("user", "system", "assistant")]}) + "\n", 1,
            "only the first may be", ["data.train.use=chat"],
        ),
        (
            json.dumps({"messages": [{"role": "assistant", "content": "a", "tool_calls": [5]}]}) + "\n", 1,
            "tool_calls[0]` must be a mapping", ["data.train.use=chat"],
        ),
    ],
    ids=lambda value: "" if not isinstance(value, str) or len(value) > 40 else value,
)  # fmt: skip
def test_data_files_that_are_told_in_a_line(
    capsys: pytest.CaptureFixture[str], content: str | bytes, line: int, part: str, overrides: list[str]
) -> None:
    Path("job.yaml").write_text(PLAIN)
    Path("train.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    for verb in ("data", "run") if "vocab" not in "".join(overrides) else ("run",):
        code, out, err = call(capsys, verb, "job.yaml", *overrides)
        assert (code, out) == (2, "")
        assert re.search(rf"^ptsdk: \S*train\.jsonl:{line}: .*{re.escape(part)}", err), err


def test_data_cannot_steer_the_terminal_that_shows_its_fault(capsys: pytest.CaptureFixture[str]) -> None:
    Path("job.yaml").write_text(PLAIN)
    Path("train.jsonl").write_text('{"\\u001b[31m\\n": 1}\n')
    code, _, err = call(capsys, "run", "job.yaml")
    assert code == 2
    assert "\x1b" not in err and r"found '\x1b[31m\n'" in err
    code, _, err = call(capsys, "run", "job.yaml", 'method={use: "\\e[31m"}')
    assert code == 2 and "\x1b" not in err


def test_a_template_that_loses_content(capsys: pytest.CaptureFixture[str]) -> None:
    Path("chat.jinja").write_text("{% for m in messages %}{{ m.role }}{{ m.content[:3] }};{% endfor %}")
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bcdefg"}]}
    Path("train.jsonl").write_text(json.dumps(row) + "\n")
    code, _, err = call(capsys, "run", "job.yaml", "data.train.use=chat")
    assert code == 2
    assert re.search(r"train\.jsonl:1: the chat template", err)


DEAF = (
    '{% for m in messages %}{% if m.role == "user" %}{{ m.content }}?{% elif m.role == "assistant" %}ANSWER{% endif %}'
    "{% endfor %}"
)
LOST = "the chat template drops the system message `messages[0]` ('bekind')"


@pytest.mark.parametrize("answer", ["{{ m.content }};", "{% generation %}{{ m.content }};{% endgeneration %}"])
def test_a_template_that_loses_what_the_system_says(capsys: pytest.CaptureFixture[str], answer: str) -> None:
    Path("chat.jinja").write_text(DEAF.replace("ANSWER", answer))
    asked = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "a"}]
    row = {"messages": [*asked, {"role": "assistant", "content": "b"}], "prompt": asked}
    Path("train.jsonl").write_text(json.dumps(row) + "\n")
    code, _, err = call(capsys, "data", "job.yaml", "data.train.use=chat")
    assert code == 2 and f"train.jsonl:1: {LOST}" in err
    (row_read,) = Prompts(path="train.jsonl").rows(Path())
    with pytest.raises(BadRow, match=re.escape(LOST)):
        Prompts(path="train.jsonl").encode(row_read, Bytes(chat_template="chat.jinja").load(None, Path()))


def test_a_template_that_is_not_jinja_has_the_line_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("chat.jinja").write_text("{% for %}")
    code, _, err = call(capsys, "run", "job.yaml")
    assert code == 2
    assert (
        "job.yaml:3: tokenizer.chat_template: the chat template cannot be used: it is not valid Jinja (line 1)" in err
    )


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("train.batch_size=2147483647", "override:1: train.batch_size"),
        ("train.batch_size=1002", "override:1: train.batch_size"),
        ("train.activation_offloading=true", "override:1: train.activation_offloading"),
    ],
)
def test_what_only_the_data_shows_is_placed_in_the_job(
    capsys: pytest.CaptureFixture[str], override: str, path: str
) -> None:
    code, _, err = call(capsys, "run", "job.yaml", override)
    assert code == 2
    assert path in err


def test_a_large_batch_is_no_absurd_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--safe", "run", "job.yaml", "train.batch_size=1000", "train.micro_batch_size=1000"]) == 0


def test_a_weight_that_shows_a_data_set_never(capsys: pytest.CaptureFixture[str]) -> None:
    job = PLAIN.replace(
        "{use: instruct, path: train.jsonl}",
        "\n    - {use: instruct, path: train.jsonl}\n    - {use: instruct, path: train.jsonl, weight: 1e-9}",
    )
    Path("job.yaml").write_text(job)
    code, _, err = call(capsys, "run", "job.yaml")
    assert code == 2
    assert "job.yaml:7: data.train.1.weight: data set number 2 would never be seen" in err


def test_a_checkpoint_that_does_not_say_what_it_is(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["--safe", "run", "job.yaml", "output_dir=first"]) == 0
    capsys.readouterr()
    config = folder / "first" / "final" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({key: value for key, value in values.items() if key != "model_type"}))
    code, _, err = call(capsys, "run", "job.yaml", "model={path: first/final}")
    assert code == 2
    assert "override:1: model.path: its config.json lacks `model_type`" in err


def test_weights_that_do_not_fit_are_named_in_order_at_their_key(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert main(["--safe", "run", "job.yaml", "output_dir=first"]) == 0
    capsys.readouterr()
    config = folder / "first" / "final" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 32}))
    Path("job.yaml").write_text(re.sub("(?m)^model: .*$", "model: {path: first/final}", PLAIN))
    code, _, err = call(capsys, "run", "job.yaml")
    assert code == 2
    named = re.findall(r"([\w.]+) is \[", err)
    assert "job.yaml:2: model.path: first/final does not fit its config.json: " in err
    assert len(named) == 5 and named == sorted(named)


def test_a_config_nested_without_end(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"a":' * 100_000)
    code, _, err = call(capsys, "check", "job.yaml", "model={path: model}")
    assert code == 2
    assert "config.json:1: cannot be read" in err


def test_a_run_tells_which_rows_it_does_not_train_on(capsys: pytest.CaptureFixture[str]) -> None:
    Path("job.yaml").write_text(PLAIN)
    long = json.dumps({"prompt": "a", "completion": "b" * 50})
    unsupervised = json.dumps({"prompt": "a" * 50, "completion": "b"})
    Path("train.jsonl").write_text(f"{ROW}x\n{long}\n{unsupervised}\n[1]\n")
    assert main(["--safe", "run", "job.yaml", "data.on_bad_row=skip"]) == 0
    assert capsys.readouterr().err.splitlines()[:-1] == [
        "ptsdk: data.train: 2 of 5 rows cut to data.max_length; first",
        "    train.jsonl:3",
        "    train.jsonl:4",
        "ptsdk: data.train: 2 of 5 rows left out, malformed; first",
        "    train.jsonl:2: not JSON: Expecting value (column 1); one JSON object a line",
        "    train.jsonl:5: a row must be an object, found list",
        "ptsdk: data.train: 1 of 5 rows left out, no supervised tokens left after truncation; first",
        "    train.jsonl:4",
    ]


def test_the_home_of_a_user_is_no_folder_called_tilde(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    Path("job.yaml").write_text(PLAIN.replace("output_dir: run", "output_dir: ~/run"))
    assert main(["--safe", "run", "job.yaml"]) == 0
    assert (folder / "home" / "run" / "final").is_dir() and not Path("~").exists()
    assert main(["--safe", "run", "job.yaml", "output_dir=~nobody-of-that-name/run"]) == 2


def test_the_end_of_a_table_that_was_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    Path("job.yaml").write_text(PLAIN)
    Path("train.csv").write_bytes(b"prompt,completion\na,b\na,b\0\0\0\n")
    code, _, err = call(capsys, "run", "job.yaml", "data.train.path=train.csv")
    assert code == 2 and "train.csv:3: NUL bytes: the file was cut off" in err
    Path("train.csv").unlink()
