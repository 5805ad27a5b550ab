"""Rows of data files: JSONL, JSON, CSV and Parquet, local or remote, and data sets of a hub."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ptsdk.data import hub_files
from ptsdk.data.example import Row
from ptsdk.data.hub_files import HUB
from ptsdk.errors import Problem, UserError
from ptsdk.redaction import CREDENTIALS, hide

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
LINES = (".jsonl", ".ndjson")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
DEEPEST = 200
"""Levels of lists and objects in a row."""
_CUT_OFF = "NUL bytes: the file was cut off while it was written"


@dataclass(frozen=True)
class DataFile:
    """One file, read through fsspec. ``name`` is what messages call it, without credentials."""

    url: str
    name: str

    @property
    def suffix(self) -> str:
        """The format: its suffix, below any of compression."""
        parts = [f".{part}" for part in self.name.lower().rsplit("/", 1)[-1].split(".")[1:]]
        return next((part for part in reversed(parts) if part not in COMPRESSED), "")

    def open(self) -> IO[bytes]:
        """The bytes, decompressed."""
        import fsspec

        stream: IO[bytes] = fsspec.open(self.url, "rb", compression="infer").open()
        return stream


def locate(path: str, base: Path) -> list[DataFile]:
    """The data files that ``path`` names: a file, a folder, a glob, an fsspec URL of any of them, or one
    file of a repository on the hub, which is fetched.

    Raises:
        UserError: there is none, or one of a format that is not read.
        RunError: the hub fails.
    """
    if wanted := _hub_file(path):
        return [DataFile(hub_files.fetch(path, wanted), path)]
    files = _remote(path) if "://" in path else _local(path, base)
    if not files:
        raise UserError(Problem(f"no data file matches {path}", f"a file must end in {', '.join(SUFFIXES)}"))
    for file in files:
        if file.suffix not in SUFFIXES:
            raise UserError(Problem(f"cannot read {file.suffix or 'a file without suffix'}", _known(), file.name))
    return files


def locate_lines(path: str, base: Path) -> list[DataFile]:
    """The same, where any line can be read by itself: JSONL on this machine, not compressed.

    Raises:
        UserError: it is something else.
    """
    wanted = "streaming reads local JSONL files, so that any row can be read by itself"
    if is_hub_dataset(path):
        raise UserError(f"{wanted}; {path} is a data set of the hub", hint=f"name a file of it: {path}/path/to.jsonl")
    for file in (found := locate(path, base)):
        if "://" in file.url:
            raise UserError(Problem(wanted, "copy the file to this machine", file.name))
        if file.suffix not in LINES or file.name.lower().endswith(COMPRESSED):
            hint = "convert it once to JSONL, one object a line, or leave data.streaming out"
            raise UserError(Problem(wanted, hint, file.name))
    return found


def is_hub_dataset(path: str) -> bool:
    """Whether the hub's own library reads it: a data set, not one file of it."""
    return path.startswith(HUB) and _hub_file(path) is None


def _hub_file(path: str) -> hub_files.HubFile | None:
    """The file of a repository that ``path`` names. One whose last part looks like no data file is a
    data set and its config."""
    return hub_files.parse(path) if DataFile("", path).suffix in SUFFIXES else None


def _local(path: str, base: Path) -> list[DataFile]:
    target = base / Path(path).expanduser()
    if target.is_file():
        found = [target]
    elif target.is_dir():
        found = sorted(p for p in target.rglob("*") if p.is_file() and DataFile("", p.name).suffix in SUFFIXES)
    else:
        anchor = Path(target.anchor)
        found = sorted(p for p in anchor.glob(str(target.relative_to(anchor))) if p.is_file()) if _is_glob(path) else []
    if not found and not _is_glob(path):
        what = "the folder holds no data file" if target.is_dir() else "no such file"
        raise UserError(
            Problem(what, "paths are relative to the job file" if not target.is_dir() else _known(), str(target))
        )
    return [DataFile(str(p), str(p)) for p in found]


def _remote(path: str) -> list[DataFile]:
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
        names = filesystem.glob(inner) if _is_glob(path) else [inner]
        if not _is_glob(path) and filesystem.isdir(inner):
            names = [name for name in filesystem.find(inner) if DataFile("", name).suffix in SUFFIXES]
        urls = [filesystem.unstrip_protocol(name) for name in sorted(names) if filesystem.isfile(name)]
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot open {path}: {error}", hint="install the fsspec package of this protocol") from error
    except OSError as error:
        raise UserError(f"cannot open {path}: {error}") from error
    return [DataFile(url, hide(url, CREDENTIALS.findall(path))) for url in urls]


def _is_glob(path: str) -> bool:
    return any(char in path for char in "*?[")


def _known() -> str:
    return f"known are {', '.join(SUFFIXES)}, also compressed ({', '.join(COMPRESSED)})"


def read(path: str, base: Path, split: str | None = None) -> Iterator[Row]:
    """The rows at ``path``, in a fixed order.

    Args:
        path: a file, folder, glob or URL (see ``locate``), ``hf://datasets/org/name[/config][:split]``, or
            ``hf://datasets/org/name[@revision]/path/to/file.jsonl``.
        base: what a relative path is relative to.
        split: of a hub's data set; ``train`` by default.

    Raises:
        UserError: nothing there, or a file that cannot be read on, named ``file:line``. A row that alone
            cannot be read has a ``fault``.
    """
    if is_hub_dataset(path):
        yield from _hub_rows(path, split)
        return
    if split is not None:
        raise UserError(f"`split` is for {HUB}org/name; {path} has none", hint="name the file of the split")
    for file in locate(path, base):
        yield from read_file(file)


def read_file(file: DataFile) -> Iterator[Row]:
    """The rows of one file. Lines count from 1; a Parquet row counts as a line."""
    readers = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".json": _json}
    try:
        with file.open() as stream:
            yield from readers.get(file.suffix, _jsonl)(file, stream)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # EOFError: compressed, and cut off
        hint = "fetch or copy the file again" if not isinstance(error, OSError) else ""
        raise UserError(Problem(f"cannot be read: {error}", hint, file.name)) from error


def _lines(file: DataFile, stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            problem = Problem(f"not UTF-8: {error.reason} at byte {error.start}", "", file.name, number)
            raise UserError(problem) from error
        if "\0" in text:
            raise UserError(Problem(_CUT_OFF, "fetch or write it again", file.name, number))
        yield number, text


def _jsonl(file: DataFile, stream: IO[bytes]) -> Iterator[Row]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield row_of_line(line, file, number)


def row_of_line(line: bytes, file: DataFile, number: int) -> Row:
    """The row of one line of JSONL, which has nothing to do with the others."""
    place = f"{file.name}:{number}"
    try:
        return _row(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")), place)
    except UnicodeDecodeError as error:
        return Row({}, place, f"not UTF-8: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        why = _CUT_OFF if b"\0" in line else "one JSON object a line"
        return Row({}, place, f"not JSON: {error.msg} (column {error.colno}); {why}")
    except (ValueError, RecursionError) as error:
        return Row({}, place, f"cannot be read: {_beyond(error)}")


def _beyond(error: Exception) -> str:
    """JSON that Python declines to read: a number of thousands of digits, or nesting without end."""
    return "nested too deep" if isinstance(error, RecursionError) else "a number has too many digits"


def _row(values: Any, place: str) -> Row:
    if not isinstance(values, dict):
        return Row({}, place, f"a row must be an object, found {type(values).__name__}")
    if _is_deep(values):
        return Row({}, place, "cannot be read: nested too deep")
    return Row(values, place)


def _is_deep(values: Any) -> bool:
    """Whether it is nested more than ``DEEPEST`` deep. How deep Python itself goes depends on who asks it to."""
    level = [values]
    for _ in range(DEEPEST):
        level = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return False
    return True


def _json(file: DataFile, stream: IO[bytes]) -> Iterator[Row]:
    """A list of objects; or, as many data sets are shipped, one object a line."""
    text = "".join(line for _, line in _lines(file, stream))
    if not text.lstrip().startswith("["):
        yield from _jsonl(file, io.BytesIO(text.encode()))
        return
    decoder = json.JSONDecoder()
    at, number = text.index("[") + 1, 1 + text.count("\n", 0, text.index("["))
    while True:
        begin = _skip(text, at)
        number += text.count("\n", at, begin)
        if text[begin : begin + 1] == "]":
            break
        try:
            values, at = decoder.raw_decode(text, begin)
        except json.JSONDecodeError as error:
            raise UserError(Problem(f"not JSON: {error.msg}", "", file.name, error.lineno)) from error
        except (ValueError, RecursionError) as error:
            problem = Problem(f"cannot be read: {_beyond(error)}", "correct the row", file.name, number)
            raise UserError(problem) from error
        yield _row(values, f"{file.name}:{number}")
        number += text.count("\n", begin, at)
        begin, at = at, _skip(text, at)
        number += text.count("\n", begin, at)
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "]":
            raise UserError(Problem("not JSON: expected `,` or `]`", "", file.name, number))
    if text[begin + 1 :].strip():
        raise UserError(Problem("not JSON: something follows the list", "", file.name, number))


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _csv(file: DataFile, stream: IO[bytes]) -> Iterator[Row]:
    lines = (line for _, line in _lines(file, stream))
    reader = csv.reader(lines, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
    begin = 1
    header: list[str] | None = None
    try:
        for fields in reader:
            if header is None:
                header = _header(fields, file)
            elif fields:
                yield _record(header, fields, f"{file.name}:{begin}")
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(Problem(f"not CSV: {error}", "", file.name, begin)) from error


def _record(header: list[str], fields: list[str], place: str) -> Row:
    if len(fields) != len(header):
        why = f"{len(fields)} fields, the header has {len(header)}; quote fields that hold the delimiter"
        return Row({}, place, why)
    return Row(dict(zip(header, fields, strict=True)), place)


def _header(fields: list[str], file: DataFile) -> list[str]:
    if len(set(fields)) != len(fields) or not all(fields):
        raise UserError(Problem("column names must be there and differ", "", file.name, 1))
    return fields


def _parquet(file: DataFile, stream: IO[bytes]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(stream).iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{file.name}:{number}")
    except pyarrow.ArrowException as error:
        raise UserError(Problem(f"not Parquet: {error}", "", file.name, number + 1)) from error


def _hub_dataset(path: str, split: str | None) -> Any:
    import datasets

    name, _, inner = path.removeprefix(HUB).partition(":")
    if inner and split:
        raise UserError(f"{path} names a split, and `split: {split}` another one")
    org, _, rest = name.partition("/")
    repo, _, config = rest.partition("/")
    try:
        return datasets.load_dataset(f"{org}/{repo}", config or None, split=inner or split or "train")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        form = f"{HUB}org/name[/config][:split], or {HUB}org/name[@revision]/path/to/file"
        hint = f"the form is {form}; is the name right, and the hub within reach?"
        raise UserError(f"cannot load {path}: {error}", hint=hint) from error


def _hub_rows(path: str, split: str | None) -> Iterator[Row]:
    for number, values in enumerate(_hub_dataset(path, split), start=1):
        yield Row(values, f"{path}:{number}")


def rename(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with ``columns`` (our name -> the file's) renamed; others keep their names. A row that
    lacks one of them is a bad one."""
    if not columns or row.fault:
        return row
    if missing := [theirs for theirs in columns.values() if theirs not in row.values]:
        return Row({}, row.place, f"no column {', '.join(missing)}, which `columns` names; there are: {row.columns}")
    taken = set(columns.values())
    kept = {k: v for k, v in row.values.items() if k not in taken and k not in columns}
    return Row({ours: row.values[theirs] for ours, theirs in columns.items()} | kept, row.place)


def fingerprint(path: str, base: Path, split: str | None = None) -> str:
    """SHA-256 of what ``path`` holds, whatever the files are called and wherever they lie."""
    digest = hashlib.sha256()
    if is_hub_dataset(path):
        _hash_rows(digest, _hub_rows(path, split))
        return digest.hexdigest()
    for file in locate(path, base):
        with file.open() as stream:
            inner = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                inner.update(chunk)
        digest.update(inner.digest())
    return digest.hexdigest()


def _hash_rows(digest: Any, rows: Iterable[Row]) -> None:
    for row in rows:
        digest.update(json.dumps(row.values, sort_keys=True, default=str).encode())
