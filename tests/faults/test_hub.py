"""A hub that is slow, cuts off, or sends other bytes than it announces."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ptsdk.builtin.sources import Hub
from ptsdk.data import hub_files
from ptsdk.hub import HubFailure

COMMIT = "c" * 40
SIZE = 400_072
NAMES = {"model": "model.safetensors", "data": "train.jsonl"}
"""What is fetched, and the file that the hub is moody about: one that has a SHA-256."""


@dataclass
class Moody:
    """What the hub does to large files, so many times."""

    files: dict[str, bytes]
    cuts: int = 0
    """Half of what is left is sent, then the line is dead."""
    stalls: int = 0
    """The same, but the line stays open, and nothing comes."""
    lies: int = 0
    """A bit is another one."""
    ranges: list[str | None] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Moody]:
    save_file({"w": torch.arange(100_000.0)}, tmp_path / "w.safetensors")
    large = {"model.safetensors": (tmp_path / "w.safetensors").read_bytes(), "train.jsonl": b'{"a":1}\n' * (SIZE // 8)}
    state = Moody({"config.json": b"{}", **large})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if "/resolve/" in path:
                return self.file(path.rsplit("/", 1)[-1])
            names = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in state.files.items()]
            siblings = [{"rfilename": name} for name in state.files]
            known = names if "/tree/" in path else {"id": "org/name", "sha": COMMIT, "siblings": siblings}
            self.head(200, json.dumps(known).encode(), Content_Type="application/json")
            self.body(json.dumps(known).encode())

        do_HEAD = do_GET

        def file(self, name: str) -> None:
            content = state.files[name]
            etag = hashlib.sha256(content).hexdigest() if name in large else "e" * 40
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            part = content[start:]
            more = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            self.head(206 if start else 200, part, ETag=f'"{etag}"', **more)
            if name in large and self.command == "GET":
                state.ranges.append(self.headers.get("Range"))
                return self.mood(part)
            self.body(part)

        def mood(self, part: bytes) -> None:
            if state.cuts or state.stalls:
                self.wfile.write(part[: len(part) // 2])
                if state.cuts:
                    state.cuts -= 1
                else:
                    state.stalls -= 1
                    state.over.wait(30)
                self.close_connection = True
            elif state.lies:
                state.lies -= 1
                self.wfile.write(part[:-1] + bytes([part[-1] ^ 1]))
            else:
                self.wfile.write(part)

        def head(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), "X-Repo-Commit": COMMIT, **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def body(self, content: bytes) -> None:
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("PTSDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    yield state
    state.over.set()
    server.shutdown()
    server.server_close()


def fetched(kind: str) -> bytes:
    if kind == "model":
        return (Hub(attempts=2, wait=0).fetch("hf://org/name") / NAMES[kind]).read_bytes()
    wanted = hub_files.parse(url := "hf://datasets/org/name/train.jsonl")
    assert wanted is not None
    return Path(hub_files.fetch(url, wanted)).read_bytes()


of_either = pytest.mark.parametrize("kind", NAMES)


@of_either
@pytest.mark.parametrize("mood", ["cuts", "stalls"])
def test_a_download_that_breaks_off_goes_on_where_it_was(hub: Moody, kind: str, mood: str) -> None:
    setattr(hub, mood, 2)
    assert fetched(kind) == hub.files[NAMES[kind]]
    assert len(hub.files[NAMES[kind]]) == SIZE
    assert hub.ranges == [None, "bytes=200000-", "bytes=300000-"]  # what came is kept in whole chunks


@of_either
def test_one_that_breaks_off_again_and_again_ends_in_words(hub: Moody, tmp_path: Path, kind: str) -> None:
    hub.cuts = 1000
    with pytest.raises(HubFailure, match=r"hf://.*org/name.* could not be fetched: "):
        fetched(kind)
    assert not list((tmp_path / "hub").rglob(NAMES[kind]))
    hub.cuts = 0
    assert fetched(kind) == hub.files[NAMES[kind]]


@of_either
def test_other_bytes_than_were_announced_are_fetched_anew(hub: Moody, kind: str) -> None:
    hub.lies = 1
    assert fetched(kind) == hub.files[NAMES[kind]]
    assert len(hub.ranges) == 2


@of_either
def test_a_hub_that_always_sends_other_bytes_is_not_believed(hub: Moody, tmp_path: Path, kind: str) -> None:
    hub.lies = 1000
    with pytest.raises(HubFailure, match=f"{NAMES[kind]} does not have the SHA-256 that the hub gives it"):
        fetched(kind)
    assert not list((tmp_path / "hub").rglob(NAMES[kind]))


@of_either
def test_what_went_bad_in_the_cache_is_fetched_anew(hub: Moody, tmp_path: Path, kind: str) -> None:
    fetched(kind)
    (file,) = (path for path in (tmp_path / "hub").rglob(NAMES[kind]) if path.is_symlink())
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.resolve().write_bytes(content)
    assert fetched(kind) == hub.files[NAMES[kind]]
    fetched(kind)
    assert len(hub.ranges) == 2


def test_a_page_in_the_place_of_an_answer_is_no_fault_of_the_repository(
    hub: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(*args: object, **kwargs: object) -> str:
        raise json.JSONDecodeError("Expecting value", "<html>", 0)

    monkeypatch.setattr("huggingface_hub.snapshot_download", page)
    with pytest.raises(HubFailure, match="could not be fetched: JSONDecodeError"):
        fetched("model")
