"""The dists of the workspace, their wheels, and interpreters that see only what a dist declares."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("*/pyproject.toml")) + sorted(
    path.parent for tier in ("plugins", "contrib") for path in (ROOT / tier).glob("*/pyproject.toml")
)
IDS = [folder.name for folder in FOLDERS]
BUILD = "import sys, hatchling.build as build; print(getattr(build, 'build_' + sys.argv[1])(sys.argv[2]))"


@cache
def project(folder: Path) -> dict[str, Any]:
    """The table ``[project]`` of a dist."""
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def named(name: str) -> Path:
    """The folder of a dist of the workspace."""
    return next(folder for folder in FOLDERS if project(folder)["name"] == name)


WORKSPACE = frozenset(project(folder)["name"] for folder in FOLDERS)


def hatch(kind: str, source: Path, out: Path) -> Path:
    """Build an ``sdist`` or a ``wheel`` through the backend's own hook."""
    command = [sys.executable, "-c", BUILD, kind, str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=True)
    return out / done.stdout.split()[-1]


def wheel_by_way_of_sdist(folder: Path, out: Path) -> Path:
    """What an index serves: the sdist, and the wheel made from nothing but that sdist."""
    with tarfile.open(hatch("sdist", folder, out)) as archive:
        archive.extractall(out, filter="data")
        unpacked = out / Path(archive.getnames()[0]).parts[0]
    return hatch("wheel", unpacked, out)


def required(requirements: Iterable[str], extra: str = "") -> list[Requirement]:
    """Those that hold on this machine."""
    parsed = [Requirement(text) for text in requirements]
    return [one for one in parsed if one.marker is None or one.marker.evaluate({"extra": extra})]


def closure(requirements: Iterable[str]) -> tuple[set[str], set[str]]:
    """(dists of the workspace, other dists) that an installer would bring for ``requirements``."""
    ours: set[str] = set()
    others: set[str] = set()
    seen: set[tuple[str, str]] = set()
    todo = required(requirements)
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        for extra in {"", *one.extras} - {extra for seen_name, extra in seen if seen_name == name}:
            seen.add((name, extra))
            todo += required(_declared(name), extra)
        (ours if name in WORKSPACE else others).add(name)
    return ours, others


def _declared(name: str) -> list[str]:
    if name not in WORKSPACE:
        return metadata.requires(name) or []
    table = project(named(name))
    extras = table.get("optional-dependencies", {})
    return table["dependencies"] + [f"{one}; extra == '{key}'" for key, each in extras.items() for one in each]


@dataclass(frozen=True)
class Interpreter:
    """A virtual environment with the wheels of some dists and links to what these require."""

    python: Path

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run python there; nothing of this process's environment leads back to the source tree."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PTSDK_"))}
        command = [str(self.python), *arguments]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=1200, check=False)


def interpreter(folder: Path, requirements: Iterable[str]) -> Interpreter:
    """What ``pip install`` of ``requirements`` would make of an empty environment, without an index.

    Other dists are linked file tree by file tree from the environment of the tests, so that what
    nobody requires is not there to be imported.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    site = next(folder.glob("lib/python*/site-packages"))
    ours, others = closure(requirements)
    for name in others:
        _link(name, site)
    for name in ours:
        built = folder / "built" / name
        built.mkdir(parents=True)
        with zipfile.ZipFile(wheel_by_way_of_sdist(named(name), built)) as wheel:
            wheel.extractall(site)
    return Interpreter(folder / "bin" / "python")


def _link(name: str, site: Path) -> None:
    dist = metadata.distribution(name)
    tops = {file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        if not (site / top).exists():
            (site / top).symlink_to(Path(str(dist.locate_file(top))))
