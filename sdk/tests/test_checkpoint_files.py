"""Files are complete or absent: manifests, kills in the middle of a save, full disks, umask."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptsdk.checkpoint.files import (
    WriteError,
    atomic_file,
    atomic_folder,
    locked,
    remove_partials,
    verify_manifest,
    write_json,
)


def written(path: Path) -> Path:
    with atomic_folder(path, manifest=True) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.bin").write_bytes(b"a" * 1000)
        write_json(folder / "b.json", {"x": 0.1})
    return path


def test_manifest_is_what_sha256sum_says(tmp_path: Path) -> None:
    folder = written(tmp_path / "c")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert files == {
        "sub/a.bin": {"sha256": hashlib.sha256(b"a" * 1000).hexdigest(), "size": 1000},
        "b.json": {"sha256": hashlib.sha256((folder / "b.json").read_bytes()).hexdigest(), "size": 15},
    }
    assert verify_manifest(folder) == []
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_what_the_manifest_does_not_list_was_not_written_with_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "c")
    (folder / ".nfs0001").touch()
    assert verify_manifest(folder) == []
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["sub/a.bin"]
    write_json(folder / "manifest.json", manifest)
    assert verify_manifest(folder) == ["sub/a.bin is not in manifest.json"]
    write_json(folder / "manifest.json", {"files": {}})
    assert verify_manifest(folder) == ["b.json is not in manifest.json", "sub/a.bin is not in manifest.json"]


def test_every_kind_of_damage_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "c")
    file = folder / "sub" / "a.bin"
    flipped = bytearray(file.read_bytes())
    flipped[500] ^= 1
    file.write_bytes(flipped)
    assert verify_manifest(folder) == ["sub/a.bin does not match its SHA-256"]
    file.write_bytes(flipped[:999])
    assert verify_manifest(folder) == ["sub/a.bin has 999 bytes instead of 1000"]
    file.unlink()
    assert verify_manifest(folder) == ["sub/a.bin is missing"]
    for damaged in (b"{", b"[]", b'{"files": []}', b'{"files": {"b.json": {}}}', b"\xff"):
        (folder / "manifest.json").write_bytes(damaged)
        assert verify_manifest(folder) == ["manifest.json is malformed"]
    (folder / "manifest.json").unlink()
    assert verify_manifest(folder) == ["manifest.json is missing"]


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "c") as folder:
        (folder / "a").write_text("x")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "f") as file:
        file.write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_or_replaced_whole(tmp_path: Path) -> None:
    written(tmp_path / "c")
    with pytest.raises(WriteError, match="exists already"), atomic_folder(tmp_path / "c") as folder:
        (folder / "new").touch()
    assert verify_manifest(tmp_path / "c") == []
    with atomic_folder(tmp_path / "c", replace=True) as folder:
        (folder / "new").touch()
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_umask_decides_permissions(tmp_path: Path, umask: int, expected: int) -> None:
    import torch
    from safetensors.torch import save_file

    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "c") as folder:
            save_file({"w": torch.zeros(2)}, folder / "w.safetensors")  # makes it 0600 by itself
            (folder / "private").touch(0o600)
    finally:
        os.umask(before)
    assert {f.stat().st_mode & 0o777 for f in (tmp_path / "c").iterdir()} == {expected}


def test_full_disk_is_a_run_error_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        refused = pytest.raises(WriteError, match=r"cannot write .*File too large(.|\n)*keep_last")
        with refused, atomic_folder(tmp_path / "c", manifest=True) as folder:
            (folder / "a").write_bytes(b"a" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_exclusive_and_dies_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    holder = "import sys,time;from pathlib import Path;from ptsdk.checkpoint.files import locked\n"
    holder += "with locked(Path(sys.argv[1]), wait=False):\n    print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError), locked(lock, wait=False):
        pass
    process.kill()
    process.wait()
    with locked(lock, wait=False):
        pass


SAVE_FOREVER = """
import sys, itertools, torch
from pathlib import Path
from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.checkpoint.state import draft_checkpoint
torch.set_num_threads(1)
run = RunDir(Path(sys.argv[1]))
with run.claim(resume=True):
    start = int(sys.argv[2])
    for step in itertools.count(start):
        w = torch.full((300_000,), float(step))
        draft_checkpoint(step, {"w": w, "v": w + 1}, {"state": {"w": {"m": w * 2}}}, {"step": step}).write(run)
        run.prune(2, step)
        if step == start:
            print("go", flush=True)
"""


def test_sigkill_at_any_moment_loses_no_checkpoint(tmp_path: Path) -> None:
    """Killed at random moments of saving and pruning: what is there is intact, and newer each time."""
    from ptsdk.checkpoint.run_dir import RunDir
    from ptsdk.checkpoint.state import load_checkpoint

    run, newest = RunDir(tmp_path / "run"), 0
    delays = random.Random(0)
    for _ in range(6):
        command = [sys.executable, "-c", SAVE_FOREVER, str(run.path), str(newest + 1)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "go\n"
        time.sleep(delays.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert all(verify_manifest(folder) == [] for folder in run.checkpoints())
        path, warnings = run.newest_intact()
        assert path is not None and warnings == []
        contents = load_checkpoint(path)
        assert contents.step > newest and contents.model is not None
        newest = contents.step
        assert contents.state == {"step": newest}
        assert bool((contents.model["w"] == newest).all()) and bool((contents.model["v"] == newest + 1).all())
        assert bool((contents.optimizer_state()["state"]["w"]["m"] == 2 * newest).all())
    with run.claim(resume=True):
        assert list(run.path.rglob("*.partial")) == []


def test_partials_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / ".c.123.partial" / "deep").mkdir(parents=True)
    (tmp_path / ".f.456.partial").touch()
    (tmp_path / "kept").touch()
    remove_partials(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
