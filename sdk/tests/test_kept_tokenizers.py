"""A tokenizer that is large: read once, known from then on, and not there while a run trains."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import ptsdk
from ptsdk.checkpoint import tokenizers as kept
from ptsdk.checkpoint.cache import cache_dir
from ptsdk.checkpoint.files import verify_manifest
from ptsdk.data import tokenizers
from ptsdk.data.tokenizers import FastTokenizer
from ptsdk.errors import UserError
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train import assemble as assembling
from ptsdk.train import reading

WORDS = [f"{chr(97 + i % 26)}{i}" for i in range(300)]
JOB = """
api: 1
model: {use: tiny, config: {hidden_size: 8}}
tokenizer: {path: words}
data: {train: {use: text, path: rows.jsonl}, max_length: 64}
method: sft
optimizer: {use: adamw, lr: 1e-2}
train: {steps: 2, batch_size: 4, save_every: 1}
output_dir: RUN
"""


def write_words(folder: Path, words: list[str] = WORDS) -> Path:
    folder.mkdir(exist_ok=True)
    backend = Backend(models.WordLevel({"<unk>": 0, **{word: i for i, word in enumerate(words, 1)}}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": WORDS[-1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PTSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "LARGE", 0)
    monkeypatch.setattr(reading, "FEW", 10)
    write_words(tmp_path / "words")
    rows = ({"text": " ".join(WORDS[i : i + 5])} for i in range(40))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "job.yaml").write_text(JOB.replace("RUN", str(tmp_path / "run")))
    return tmp_path


@pytest.fixture
def unparsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, whoever parses a vocabulary fails."""

    def refuse() -> None:
        monkeypatch.setattr(tokenizers, "_read_backend", lambda *_: pytest.fail("a vocabulary was read"))
        monkeypatch.setattr(FastTokenizer, "_parse", lambda _: pytest.fail("a vocabulary was parsed again"))

    return refuse


def assembled(folder: Path) -> Any:
    registry = Registry(scan())
    return assembling.assemble(load_job(folder / "job.yaml", (), registry), registry)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def entries() -> list[Path]:
    return [path for path in (cache_dir() / "tokenizers").glob("*") if path.is_dir()]


def test_a_second_start_on_kept_examples_parses_no_vocabulary(here: Path, unparsed: Callable[[], None]) -> None:
    first = assembled(here)
    unparsed()
    second = assembled(here)
    assert [*second.train_data] == [*first.train_data]
    for one, other in ((first.tokenizer, second.tokenizer),):
        assert one.facts() == other.facts() and one.special_tokens == other.special_tokens
        one.save(here / "one")
        other.save(here / "other")
    assert files(here / "one") == files(here / "other")


def test_a_kept_tokenizer_encodes_when_it_is_asked(here: Path) -> None:
    plain = tokenizers.from_folder(here / "words")
    kept.from_folder(here / "words")
    known = kept.from_folder(here / "words")
    assert isinstance(known, FastTokenizer) and plain is not None
    assert known._parsed is None
    for one in (known, plain):
        ids, offsets = one.encode_with_offsets("a0 b1 c")
        assert (ids, list(offsets)) == ([1, 2, 0], [(0, 2), (3, 5), (6, 7)])
    assert known.decode([1, 2]) == plain.decode([1, 2]) == "a0 b1"
    assert known.fingerprint() == plain.fingerprint()
    known.set_chat_template("{{ messages }}")
    assert known.fingerprint() != plain.fingerprint()
    plain.set_chat_template("{{ messages }}")
    assert known.fingerprint() == plain.fingerprint()


def test_a_run_trains_and_exports_without_the_vocabulary(
    here: Path, unparsed: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tokenizers.from_folder(here / "words")
    assert plain is not None
    plain.save(here / "plain")
    build, seen = assembling.build_policy, []

    def building(*arguments: Any) -> Any:
        """The data is read and no weight is."""
        seen.append([one for one in made if one._parsed is not None])
        unparsed()
        return build(*arguments)

    made: list[FastTokenizer] = []
    describe = FastTokenizer._describe
    monkeypatch.setattr(FastTokenizer, "_describe", lambda self, *a: (made.append(self), describe(self, *a))[1])
    monkeypatch.setattr(assembling, "build_policy", building)
    result = ptsdk.run(here / "job.yaml")
    assert made and seen == [[]]
    assert all(one._parsed is None for one in made)
    final = files(result.final_dir)
    assert {name: final[name] for name in files(here / "plain")} == files(here / "plain")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_other_files_are_another_tokenizer_and_other_examples(name: str, here: Path) -> None:
    first = assembled(here)
    if name == "tokenizer.json":
        write_words(here / "words", WORDS[::-1])
    elif name == "tokenizer_config.json":
        config = json.loads((here / "words" / name).read_text())
        (here / "words" / name).write_text(json.dumps({**config, "bos_token": "<first>"}))
    else:
        (here / "words" / name).write_text("{{ messages[0].content }}")
    second, plain = assembled(here), tokenizers.from_folder(here / "words")
    assert plain is not None and second.tokenizer.fingerprint() == plain.fingerprint() != first.tokenizer.fingerprint()
    assert (second.tokenizer.vocab_size, second.tokenizer.bos_id) == (plain.vocab_size, plain.bos_id)
    assert len(entries()) == 2
    assert len([path for path in (cache_dir() / "examples").glob("*") if path.is_dir()]) == 2
    assert ([*second.train_data] == [*first.train_data]) == (name != "tokenizer.json")


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff"])
def test_a_file_that_is_damaged_later_is_refused_as_ever(content: bytes, here: Path) -> None:
    assembled(here)
    (here / "words" / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError) as plain:
        tokenizers.from_folder(here / "words")
    with pytest.raises(UserError) as caught:
        assembled(here)
    assert str(caught.value) == str(plain.value)


def test_a_link_out_of_the_folder_is_refused_of_a_kept_one_too(here: Path) -> None:
    assembled(here)
    file = here / "words" / "tokenizer.json"
    file.rename(here / "elsewhere.json")
    file.symlink_to(here / "elsewhere.json")
    with pytest.raises(UserError, match=r"elsewhere\.json"):
        assembled(here)


@pytest.mark.parametrize("name", ["tokenizer.json", "facts.json", "manifest.json"])
def test_a_damaged_entry_is_made_anew(name: str, here: Path) -> None:
    first = kept.from_folder(here / "words")
    (entry,) = entries()
    (entry / name).write_bytes((entry / name).read_bytes().replace(b"1", b"2", 1))
    again = kept.from_folder(here / "words")
    assert isinstance(first, FastTokenizer) and isinstance(again, FastTokenizer)
    assert again._parsed is not None and again.facts() == first.facts()
    assert verify_manifest(entry) == []


def test_small_ones_and_other_kinds_are_not_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "LARGE", 2**20)
    assert kept.from_folder(here / "words") is not None
    assert kept.from_folder(here) is None
    assert entries() == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_vocabulary_is_given_back() -> None:
    code = """
from pathlib import Path
from tokenizers import Tokenizer, models
from ptsdk.data.tokenizers import FastTokenizer
from ptsdk.train.memory import give_back_freed

def resident():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS"))
    return int(line.split()[1])

before = resident()
tokenizer = FastTokenizer(Tokenizer(models.WordLevel({f"word {i}": i for i in range(200_000)}, "word 0")), {})
there = resident()
tokenizer.release()
give_back_freed()
print(there - before, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    taken, left = map(int, done.stdout.split())
    assert left < taken / 2, f"of {taken} KiB {left} are held"
