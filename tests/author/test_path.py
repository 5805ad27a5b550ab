"""The whole path of an author, for every kind: new-plugin, edit, build, install, test, conform, run a job.

The packages are installed from their wheels into an environment that has ptsdk, pytest and, for the two
kinds that only a method that generates asks for, ptsdk-grpo. They are installed side by side because they
must not disturb each other either. Some have the name of a component of core.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.utils import canonicalize_name

from ptsdk.cli.main import main
from ptsdk_templates.rendering import kinds
from tests.packaging.dists import Interpreter, interpreter

pytestmark = pytest.mark.xdist_group("author")  # one environment for all
EDITED = "What the author made of it"
WITHOUT_JOB = {"checkpoint-source", "checkpoint-format", "command"}

NAMESAKES = {
    ("loss", "cross_entropy"),
    ("optimizer", "adamw"),
    ("dataset", "text"),
    ("logger", "jsonl"),
    ("command", "run"),
}


@dataclass(frozen=True)
class Author:
    """The packages by kind or name, the environment they are installed in, and what the driver saw there."""

    folders: dict[str, Path]
    python: Interpreter
    seen: dict[str, Any]


def named(kind: str) -> str:
    return f"my-{kind}"


def new_plugin(kind: str, name: str, where: Path) -> Path:
    """What new-plugin writes."""
    assert main(["new-plugin", kind, name, "--dir", str(where)]) == 0
    return where / f"ptsdk-{name}"


def written(kind: str, where: Path) -> Path:
    """new-plugin, and an edit."""
    folder = new_plugin(kind, named(kind), where)
    plugin = folder / "src" / f"ptsdk_{named(kind).replace('-', '_')}" / "plugin.py"
    lines = plugin.read_text("utf-8").splitlines(keepends=True)
    target = next(i for i, line in enumerate(lines) if ":" in line and line.strip().startswith('"ptsdk_my_'))
    lines[target + 1] = f'            "{EDITED}",\n'  # the summary stands below the target
    plugin.write_text("".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Author:
    root = tmp_path_factory.mktemp("author")
    folders = {kind: written(kind, root) for kind in kinds()}
    folders |= {name: new_plugin(kind, name, root) for kind, name in sorted(NAMESAKES)}
    python = interpreter(root / "env", ["ptsdk", "ptsdk-grpo", "pytest"])
    site = next((root / "env").glob("lib/python*/site-packages"))
    for folder in folders.values():
        (built,) = WheelBuilder(str(folder)).build(directory=str(root / "wheels"), versions=["standard"])
        with zipfile.ZipFile(built) as wheel:
            wheel.extractall(site)
        shutil.rmtree(folder / "src")  # from here on there is only what was installed
    driver = str(Path(__file__).with_name("driver.py"))
    done = python.run(driver, *map(str, folders.values()), cwd=root)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return Author(folders, python, json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("kind", kinds())
def test_it_is_found_by_its_entry_point(kind: str, author: Author) -> None:
    record = next(r for r in author.seen["plugins"] if r["dist"] == f"ptsdk-{named(kind)}")
    assert (record["status"], record["version"]) == ("loaded", "0.1.0")
    assert [(c["kind"], c["name"], c["summary"]) for c in record["components"]] == [(kind, named(kind), EDITED)]


@pytest.mark.parametrize("kind", kinds())
def test_its_own_tests_pass(kind: str, author: Author) -> None:
    assert author.seen["tests"][author.folders[kind].name]


@pytest.mark.parametrize("kind", kinds())
def test_it_conforms(kind: str, author: Author) -> None:
    done = author.seen["conform"][author.folders[kind].name]
    assert done["code"] == 0, done["out"]
    report = json.loads(done["out"])
    assert (report["dist"], report["ok"]) == (f"ptsdk-{named(kind)}", True)
    assert named(kind) in {suite["component"] for suite in report["suites"]}


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind not in WITHOUT_JOB])
def test_its_job_runs(kind: str, author: Author) -> None:
    job = author.seen["jobs"][author.folders[kind].name]
    assert job["check"]["code"] == 0, job["check"]["out"]
    assert f"ptsdk-{named(kind)}/{named(kind)}" in job["check"]["out"]
    assert job["run"]["code"] == 0, job["run"]["err"]
    assert list((author.folders[kind] / "run" / "final").glob("*model.safetensors"))  # or adapter_model


@pytest.mark.parametrize(("kind", "name"), sorted(NAMESAKES))
def test_a_name_that_core_has_is_green_too(kind: str, name: str, author: Author) -> None:
    dist = author.folders[name].name
    record = next(r for r in author.seen["plugins"] if r["dist"] == canonicalize_name(dist))
    assert [(c["kind"], c["name"]) for c in record["components"]] == [(kind, name)]
    assert author.seen["tests"][dist]
    assert author.seen["conform"][dist]["code"] == 0, author.seen["conform"][dist]["out"]
    if kind not in WITHOUT_JOB:
        job = author.seen["jobs"][dist]
        assert f"{canonicalize_name(dist)}/{name}" in job["check"]["out"]
        assert job["run"]["code"] == 0, job["run"]["err"]


def ptsdk(author: Author, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line where the packages are installed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PTSDK_"))}
    command = [str(author.python.python), "-m", "ptsdk", *arguments]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, timeout=120, check=False)


def test_its_verb_answers(author: Author) -> None:
    run = author.folders["loss"] / "run"
    done = ptsdk(author, named("command"), str(run))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{run}: step 4, loss ")


def test_a_checkpoint_is_fetched_and_opened(author: Author, tmp_path: Path) -> None:
    """By the scheme of one package, in the format of another."""
    final = author.folders["loss"] / "run" / "final"
    convert = (
        "import sys, numpy as np; from safetensors.numpy import load_file; "
        "np.savez(sys.argv[2], **load_file(sys.argv[1]))"
    )
    done = author.python.run("-c", convert, str(final / "model.safetensors"), str(tmp_path / "w.npz"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shutil.copy(final / "config.json", tmp_path)
    job = {
        "api": 1,
        "model": {"path": f"{named('checkpoint-source')}://w.npz"},
        "tokenizer": {"use": "bytes"},
        "method": "sft",
        "data": {"train": {"use": "ptsdk/text", "path": str(author.folders["loss"] / "example" / "train.jsonl")}},
        "train": {"steps": 1, "batch_size": 2, "micro_batch_size": 2},
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job), "utf-8")
    done = ptsdk(author, "run", str(tmp_path / "job.yaml"), MODEL_SHELF=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_the_user_of_a_package_does_not_need_the_templates(author: Author) -> None:
    done = ptsdk(author, "new-plugin", "loss", "focal")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install ptsdk-templates" in done.stderr
