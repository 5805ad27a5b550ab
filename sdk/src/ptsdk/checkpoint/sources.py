"""From what a job writes after ``path:`` to an opened checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptsdk import hints
from ptsdk.checkpoint.cache import verified
from ptsdk.contracts.checkpoint import Checkpoint, CheckpointFormat, CheckpointSource
from ptsdk.errors import UserError
from ptsdk.specs import CheckpointFormatSpec

if TYPE_CHECKING:
    from ptsdk.registry import Registry

URL = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CONVERT = (
    "pickles run code when they are opened; convert where you trust them: AutoModelForCausalLM"
    ".from_pretrained(SOURCE).save_pretrained(TARGET) of transformers writes safetensors"
)


@dataclass(frozen=True)
class Reference:
    """A path or URL, and the SHA-256 its bytes must have."""

    text: str
    location: str
    sha256: str | None

    @property
    def scheme(self) -> str | None:
        """The URL's scheme in lower case, None for a path."""
        match = URL.match(self.location)
        return match.group(1).lower() if match else None


def parse_reference(text: str) -> Reference:
    """Cut ``#sha256=HEX`` off.

    Raises:
        UserError: empty, another fragment on a URL, or a hash that is not 64 hex digits.
    """
    location, mark, fragment = text.rpartition("#")
    if not mark or not (URL.match(text) or fragment.startswith("sha256=")):
        location, fragment = text, ""
    if not location:
        raise UserError(f"{text!r} names no checkpoint", hint="give a folder, a file or a URL such as hf://org/name")
    if fragment and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", fragment):
        raise UserError(f"{text}: cannot read #{fragment}", hint="what may follow is #sha256= and 64 hex digits")
    return Reference(text, location, fragment.removeprefix("sha256=").lower() or None)


def open_checkpoint(reference: str, base: Path, registry: Registry, *, weights: bool = True) -> Checkpoint:
    """The checkpoint a reference names, opened; no weight is read.

    Args:
        reference: a path, or a URL whose scheme an installed checkpoint source answers to; either
            may end in ``#sha256=HEX``, which the bytes of the fetched file must have.
        base: the folder that relative paths are relative to.
        registry: knows the sources and the formats.
        weights: False when only config.json and the tokenizer are wanted (a source may then
            leave the weights where they are).

    Raises:
        UserError: no such place, no one answers to the scheme, no format reads it, a pickle, or
            bytes that do not match their hash.
        RunError: a source could not be reached.
    """
    parsed = parse_reference(reference)
    path = _local(parsed, base, registry, weights)
    if parsed.sha256:
        _check_hash(parsed, path)
    checkpoint = _format(parsed, path, registry).open(path)
    if (weights or parsed.scheme is None) and next(checkpoint.names(), None) is None:
        raise UserError(f"{parsed.text} holds no tensor", hint="is it the whole checkpoint?")
    return checkpoint


def _local(reference: Reference, base: Path, registry: Registry, weights: bool) -> Path:
    if reference.scheme is not None:
        source = registry.load(registry.by_scheme(reference.scheme))()
        assert isinstance(source, CheckpointSource)
        return source.fetch(reference.location, weights=weights)
    path = base / Path(reference.location).expanduser()
    if not path.exists():
        hub = re.fullmatch(r"[\w.-]+/[\w.-]+", reference.location)
        hint = f"a model of the hub is written hf://{reference.location}" if hub else f"paths are relative to {base}"
        raise UserError(f"there is no checkpoint {reference.text}: {path} does not exist", hint=hint)
    return path


def _check_hash(reference: Reference, path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{reference.text} names a folder; #sha256= is for one file", hint="leave the hash away")
    assert reference.sha256 is not None
    if not verified(path, reference.sha256):
        raise UserError(
            f"{reference.text}: the file {path} does not have this SHA-256",
            hint="it is damaged or another version; fetch it again, or correct the hash",
        )


def _format(reference: Reference, path: Path, registry: Registry) -> CheckpointFormat:
    for entry in registry.formats():
        spec = entry.spec
        assert isinstance(spec, CheckpointFormatSpec)
        if any(path.name.endswith(suffix) if suffix else path.is_dir() for suffix in spec.suffixes):
            candidate = registry.load(entry)()
            assert isinstance(candidate, CheckpointFormat)
            if candidate.matches(path):
                return candidate
    raise _unreadable(reference, path, registry)


def _unreadable(reference: Reference, path: Path, registry: Registry) -> UserError:
    """Why no format reads it, and what to do."""
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            return UserError(
                f"{reference.text} is an adapter alone, not a model",
                hint=f"name its base as the model and give this folder as the adapter: --adapter {path}",
            )
        return UserError(
            f"{reference.text} is not a checkpoint: {path} has no config.json", hint="is it the right folder?"
        )
    if path.suffix in PICKLES:
        return UserError(f"{reference.text} is a pickle, which is not opened", hint=CONVERT)
    if path.suffix == ".safetensors":
        return UserError(f"{reference.text} is one file of a checkpoint", hint=f"give its folder: {path.parent}")
    if plugin := hints.provider("checkpoint-format", path.suffix.removeprefix(".")):
        return UserError(f"no installed plugin reads the file {reference.text}", hint=f"pip install {plugin}")
    known = sorted({s or "a folder" for e in registry.formats() for s in getattr(e.spec, "suffixes", ())})
    return UserError(
        f"no installed plugin reads the file {reference.text}",
        hint=f"readable here: {', '.join(known)}; `ptsdk list checkpoint-format` shows by what",
    )
