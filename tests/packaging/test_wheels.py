"""Wheels, made by way of their sdists, in environments that hold only what they declare."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WriteJob
from tests.packaging.dists import FOLDERS, IDS, Interpreter, interpreter, project, wheel_by_way_of_sdist

TESTED = [folder for folder in FOLDERS if any((folder / "tests").rglob("test_*.py"))]
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 300,
}


@pytest.mark.parametrize("folder", FOLDERS, ids=IDS)
def test_a_wheel_holds_every_file_of_its_package_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    source = folder / "src"
    package = project(folder)["name"].replace("-", "_")
    with zipfile.ZipFile(wheel_by_way_of_sdist(folder, tmp_path)) as wheel:
        names = wheel.namelist()
        info = next(name for name in names if name.endswith("/METADATA")).partition("/")[0]
        assert wheel.read(f"{info}/licenses/LICENSE") == (folder / "LICENSE").read_bytes()
    paths = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    files = {path.as_posix() for path in paths if not {"__pycache__", ".ruff_cache", ".pytest_cache"} & set(path.parts)}
    assert {name for name in names if not name.startswith(info)} == files
    assert f"{package}/py.typed" in files


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    return interpreter(tmp_path_factory.mktemp("core"), ["ptsdk"])


@pytest.fixture(scope="module")
def with_plugins(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    return interpreter(tmp_path_factory.mktemp("plugins"), ["ptsdk-llama", "ptsdk-lora"])


def listed(where: Interpreter, cwd: Path) -> dict[str, str]:
    done = where.run("-m", "ptsdk", "plugins", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {record["dist"]: record["status"] for record in json.loads(done.stdout)}


def test_core_alone_trains_and_generates(
    core: Interpreter, job: dict[str, Any], write_job: WriteJob, tmp_path: Path
) -> None:
    assert listed(core, tmp_path) == {"ptsdk": "loaded"}
    done = core.run("-m", "ptsdk", "run", str(write_job(job)), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    arguments = ["--model", str(tmp_path / "run" / "final"), "--prompt", "the ", "--max-new-tokens", "2", "--json"]
    done = core.run("-m", "ptsdk", "generate", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["completions"]


def test_core_alone_says_what_to_install(
    core: Interpreter, job: dict[str, Any], write_job: WriteJob, tmp_path: Path
) -> None:
    done = core.run("-m", "ptsdk", "run", str(write_job(job | {"adapter": "lora"})), cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install ptsdk-lora" in done.stderr


def test_plugins_join_by_being_installed(
    with_plugins: Interpreter, job: dict[str, Any], write_job: WriteJob, tmp_path: Path
) -> None:
    assert listed(with_plugins, tmp_path) == dict.fromkeys(["ptsdk", "ptsdk-llama", "ptsdk-lora"], "loaded")
    path = write_job(job | {"model": {"use": "llama", "config": LLAMA}, "adapter": {"use": "lora", "rank": 2}})
    done = with_plugins.run("-m", "ptsdk", "run", str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "final" / "adapter_model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("folder", TESTED, ids=[folder.name for folder in TESTED])
def test_own_tests_need_only_what_the_dist_declares(folder: Path, tmp_path: Path) -> None:
    where = interpreter(tmp_path / "env", [f"{project(folder)['name']}[test]"])
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("src", "__pycache__", ".*_cache"))
    done = where.run("-m", "pytest", "-q", "--import-mode=importlib", "-m", "not weights", "tests", cwd=copy)
    assert done.returncode == 0, done.stdout[-4000:]
