"""One file of a data repository on the hub: ``hf://datasets/org/name[@revision]/path/to/file``."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import unquote

from ptsdk.errors import RunError, UserError

HUB = "hf://datasets/"

_PART = r"\w[\w.-]*"
_REVISION = r"refs/(?:convert/[\w.-]+|pr/\d+)|[^/@:]+"
_FILE = re.compile(rf"{HUB}(?P<repository>{_PART}/{_PART})(?:@(?P<revision>{_REVISION}))?/(?P<file>[^@].*)")
_ACCESS = "check the name; a private or gated data set needs HF_TOKEN and access at https://huggingface.co/datasets/"


class HubFile(NamedTuple):
    """Where a file lies; the same form as fsspec's, revisions with ``/`` written ``%2F``."""

    repository: str
    revision: str | None
    file: str


def parse(path: str) -> HubFile | None:
    """The parts of ``path``, None where it names no file of a repository."""
    found = _FILE.fullmatch(path)
    if found is None:
        return None
    revision = found["revision"]
    return HubFile(found["repository"], unquote(revision) if revision else None, found["file"])


def fetch(path: str, wanted: HubFile) -> str:
    """The file in the hub's own cache. ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are
    honoured, and a hub that cannot be reached is no error for what is cached.

    Args:
        path: as the job has it, for messages.

    Raises:
        UserError: no such repository, revision or file, or no access to it.
        RunError: the hub fails, and the cache has not got it.
    """
    from huggingface_hub import errors, hf_hub_download

    if any(char in wanted.file for char in "*?[") or {"", ".", ".."} & set(wanted.file.split("/")):
        raise UserError(f"{path} names no file", hint=f"write {HUB}org/name[@revision]/path/to/file, one entry a file")
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        found = hf_hub_download(
            wanted.repository, wanted.file, repo_type="dataset", revision=wanted.revision, endpoint=endpoint
        )
    except errors.GatedRepoError as error:
        raise UserError(f"{path} asks for consent to its terms", hint=_ACCESS + wanted.repository) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{path}: no such data set, or no access to it", hint=_ACCESS + wanted.repository) from error
    except errors.RevisionNotFoundError as error:
        hint = "look at the branches and tags of the data set"
        raise UserError(f"{path}: no revision {wanted.revision}", hint=hint) from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(path, error) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{path}: {wanted.repository} has no file {wanted.file}", hint="look at its files") from error
    except errors.HFValidationError as error:
        raise UserError(f"{path}: {error}", hint=f"the form is {HUB}org/name[@revision]/path/to/file") from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of requests or httpx, by version
        raise _unreachable(path, error) from error
    return str(found)


def _unreachable(path: str, error: BaseException) -> RunError:
    """The hub's own words, of the first cause: what is raised last says only that nothing was cached."""
    while error.__cause__ is not None:
        error = error.__cause__
    root = f"{type(error).__name__}: {error}".splitlines()[0]
    hint = "is there a network? HF_ENDPOINT names another hub, and a data set may be local files"
    return RunError(f"{path} could not be fetched, and is not in the cache: {root}\n    {hint}")
