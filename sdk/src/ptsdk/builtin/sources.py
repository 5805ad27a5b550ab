"""Where checkpoints come from without a plugin: the Hugging Face hub and installed packages."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name
from pydantic import Field

from ptsdk.checkpoint.cache import verified
from ptsdk.checkpoint.packages import (
    MODEL_SUFFIXES,
    SUMS,
    ModelFile,
    assemble,
    checksums,
    distribution,
    model_files,
    required,
    shipped,
)
from ptsdk.contracts.checkpoint import CheckpointSource
from ptsdk.errors import UserError
from ptsdk.hub import ATTEMPTS, WAIT, explained, patiently, refuse_damage

SMALL = ["*.json", "*.jinja", "tokenizer.model", "*.txt", "LICENSE*", "NOTICE*"]
WEIGHTS = ["*.safetensors"]


class Hub(CheckpointSource):
    """``hf://org/name[@revision]``: config, tokenizer and safetensors of a repository, never pickles.

    The hub's own cache is used (``HF_HOME``), downloads are resumed, ``HF_ENDPOINT``, ``HF_TOKEN``
    and ``HF_HUB_OFFLINE`` are honoured. A hub that cannot be reached is no error for what is cached.
    Large files are checked against the SHA-256 that the hub gives them, once after each download.
    """

    attempts: int = Field(ATTEMPTS, ge=1, description="how often a download is tried when the hub fails")
    wait: float = Field(WAIT, ge=0, description="seconds before the second attempt, doubled before each further one")

    def fetch(self, url: str, *, weights: bool = True) -> Path:
        """The snapshot's folder in the hub's cache.

        Raises:
            UserError: no such repository or revision, or no access to it.
            RunError: the hub fails, or sends other bytes than it announces, and the cache has not got it.
        """
        repository, revision = parse_hub(url)
        return patiently(lambda: self._download(url, repository, revision, weights), self.attempts, self.wait)

    def _download(self, url: str, repository: str, revision: str | None, weights: bool) -> Path:
        from huggingface_hub import snapshot_download

        with explained(url, repository, revision, kind="model", form="hf://org/name[@revision]"):
            folder = snapshot_download(
                repository,
                revision=revision,
                allow_patterns=SMALL + WEIGHTS if weights else SMALL,
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        for file in sorted(Path(folder).rglob("*")):
            refuse_damage(url, file, verified)
        return Path(folder)


def parse_hub(url: str) -> tuple[str, str | None]:
    """``hf://org/name@revision`` -> (``org/name``, ``revision``).

    Raises:
        UserError: not of this form, or a data set.
    """
    location = url.split("://", 1)[1]
    repository, _, revision = location.rstrip("/").partition("@")
    if repository.startswith(("datasets/", "spaces/")):
        raise UserError(
            f"{url} is not a model", hint="data sets are named under data:, as path: hf://datasets/org/name"
        )
    if not re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", repository):
        raise UserError(f"{url} is not of the form hf://org/name[@revision]")
    return repository, revision or None


class Package(CheckpointSource):
    """``pkg://dist[/file]``: a model file inside an installed distribution.

    A file shipped in pieces, by the distribution or by those it requires, is put together once in
    the cache folder and checked against the ``SHA256SUMS`` shipped with it. Without ``/file`` it
    is the only model file found. A safetensors file beside its config.json stands for their folder.
    """

    def fetch(self, url: str, *, weights: bool = True) -> Path:
        """The file, or the folder of a safetensors checkpoint.

        Raises:
            UserError: not installed, no such file or several, a path that leaves the package, or
                bytes that do not match their hash.
        """
        name, wanted = parse_package(url)
        dist = distribution(name)
        paths = shipped([dist, *required(dist)])
        file = _choose(url, model_files([path for path in paths if _fits(path, wanted)]))
        sums = checksums(paths)
        if not file.whole:
            if file.name not in sums:
                raise UserError(
                    f"{url}: {name} ships {file.name} in pieces without a {SUMS}", hint="ask its author for one"
                )
            return assemble(file, sums[file.name], canonicalize_name(name))
        path = file.pieces[0]
        if file.name in sums and not verified(path, sums[file.name]):
            raise UserError(f"{url}: {path} is damaged", hint=f"pip install --force-reinstall {name}")
        beside = path.suffix == ".safetensors" and (path.parent / "config.json").is_file()
        return path.parent if beside else path


def parse_package(url: str) -> tuple[str, str]:
    """``pkg://dist/file`` -> (``dist``, ``file``), the file empty where none is named.

    Raises:
        UserError: no distribution, or a path that would leave the package.
    """
    name, _, file = url.split("://", 1)[1].partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"{url} is not of the form pkg://dist[/file]")
    parts = PurePosixPath(file).parts
    if file.startswith("/") or "\\" in file or ".." in parts:
        raise UserError(f"{url} leaves the package", hint="name a file inside it")
    return name, "/".join(parts)


def _fits(path: Path, wanted: str) -> bool:
    """Whether ``path`` (or the whole it is a piece of) is the wanted file, or any model file."""
    whole = re.sub(r"\.part\d+$", "", path.as_posix())
    return f"/{whole}".endswith(f"/{wanted}") if wanted else whole.endswith(MODEL_SUFFIXES)


def _choose(url: str, files: list[ModelFile]) -> ModelFile:
    if len(files) == 1:
        return files[0]
    if not files:
        raise UserError(f"{url}: the package ships no such model file", hint="`pip show -f` lists what it ships")
    shards = {file.pieces[0].parent for file in files if file.whole and file.name.endswith(".safetensors")}
    if len(shards) == 1 and all(file.whole for file in files) and (next(iter(shards)) / "config.json").is_file():
        return files[0]
    names = ", ".join(file.name for file in files)
    raise UserError(f"{url}: the package ships several model files: {names}", hint=f"name one: {url.rstrip('/')}/FILE")
