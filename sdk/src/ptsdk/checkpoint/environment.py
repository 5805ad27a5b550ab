"""Fingerprints of what a run does not hold itself: installed packages, their sources, a model's files."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable
from functools import cache
from importlib import metadata, util
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ptsdk._installed import header
from ptsdk.checkpoint.files import sha256_file

HASHED_IN_FULL = 64 * 2**20
"""Model files above this many bytes are fingerprinted by their size, their first and last MiB, and ``SAMPLE`` bytes
of every MiB between: no tensor of a model's size changes unseen."""
SAMPLE = 4096

_OF_AN_EXTRA = re.compile(r";(?!.*\bor\b).*\bextra\s*==")
"""A requirement that holds for an extra alone: nine of ten, and no need to parse them."""


def installed_dists() -> dict[str, dict[str, str | None]]:
    """``{dist: {version, record}}`` of everything installed, by name; see ``record_digest``."""
    found: dict[str, dict[str, str | None]] = {}
    for dist in metadata.distributions():
        fields = header(dist)
        for name in fields["name"][:1]:
            entry = {"version": next(iter(fields["version"]), None), "record": record_digest(dist)}
            found.setdefault(canonicalize_name(name), entry)  # the first on the path is the one imported
    return dict(sorted(found.items()))


def required_dists(names: Iterable[str]) -> dict[str, str | None]:
    """``names`` and everything that they require here, however indirectly, with the versions installed (None: it is
    not); extras do not count."""
    found: dict[str, str | None] = {}
    left = [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name not in found:
            found[name], required = _version_and_requirements(name)
            left += [canonicalize_name(one) for one in required]
    return dict(sorted(found.items()))


@cache
def _version_and_requirements(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Read once in a process: of all that a job uses it takes a tenth of a second."""
    try:
        fields = header(metadata.distribution(name))
    except metadata.PackageNotFoundError:
        return None, ()
    wanted = [Requirement(text) for text in fields["requires-dist"] if not _OF_AN_EXTRA.search(text)]
    required = tuple(r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""}))
    return next(iter(fields["version"]), None), required


def processor() -> str:
    """The model of the CPU as the system names it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def record_digest(dist: metadata.Distribution) -> str | None:
    """A hash of the hashes in a dist's RECORD: equal where the same files were installed.

    What an installer adds (its own notes, bytecode) does not count. None for an editable install,
    whose RECORD says nothing of its sources, and where there is no RECORD.
    """
    record = dist.read_text("RECORD")
    if record is None or _editable(dist):
        return None
    lines = sorted(line for line in record.splitlines() if "sha256=" in line and ".dist-info/" not in line)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _editable(dist: metadata.Distribution) -> bool:
    origin = json.loads(dist.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def source_digest(module: str) -> str | None:
    """A hash of the Python sources of a top-level module or package, without importing it."""
    spec = util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(origin.parent).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def model_fingerprint(path: Path) -> str:
    """A hash of a local checkpoint's weights and config that reads little of them.

    Config and small files count in full, large ones by samples (``HASHED_IN_FULL``); a safetensors header and a
    GGUF's metadata lie in the first MiB.
    """
    names = ("config.json",)
    files = [path] if path.is_file() else [f for f in path.iterdir() if f.suffix == ".safetensors" or f.name in names]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}\0{_sampled(file)}\n".encode())
    return digest.hexdigest()


def _sampled(file: Path) -> str:
    size = file.stat().st_size
    if size <= HASHED_IN_FULL:
        return sha256_file(file)
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as handle:
        digest.update(handle.read(2**20))
        for start in range(2**20, size - 2**20, 2**20):
            handle.seek(start)
            digest.update(handle.read(SAMPLE))
        handle.seek(-(2**20), 2)
        digest.update(handle.read())
    return digest.hexdigest()
