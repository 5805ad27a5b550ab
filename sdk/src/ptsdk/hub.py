"""The Hugging Face hub: what its failures mean, when to ask again, and whether what came is what it announced."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ptsdk.errors import RunError, UserError

T = TypeVar("T")
ATTEMPTS, WAIT = 4, 1.0
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class HubFailure(RunError):
    """The hub did not answer as it should; trying again may help."""


def patiently(fetch: Callable[[], T], attempts: int = ATTEMPTS, wait: float = WAIT) -> T:
    """``fetch()``, tried up to ``attempts`` times while the hub fails.

    Args:
        fetch: raises a ``HubFailure`` where it may be tried again.
        attempts: 1 tries once.
        wait: seconds before the second attempt, doubled before each further one.
    """
    for attempt in range(attempts - 1):
        try:
            return fetch()
        except HubFailure:
            time.sleep(wait * 2**attempt)
    return fetch()


@contextmanager
def explained(url: str, repository: str, revision: str | None, *, kind: str, form: str) -> Iterator[None]:
    """What the hub's library raises inside, in words.

    Args:
        url: as the job has it.
        repository: as a part of the hub's own addresses: ``org/name``, ``datasets/org/name``.
        revision: what was asked for.
        kind: what the repository holds, ``model`` or ``data set``.
        form: of such a URL.

    Raises:
        UserError: no such repository, revision or file, or no access to it.
        HubFailure: the hub cannot be reached or fails, and the cache has not got it.
        RunError: it refuses for another reason.
    """
    from huggingface_hub import errors

    access = f"check the name; a private or gated {kind} needs HF_TOKEN and access at https://huggingface.co/"
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(f"{url} asks for consent to its terms", hint=access + repository) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{url}: no such {kind}, or no access to it", hint=access + repository) from error
    except errors.RevisionNotFoundError as error:
        hint = f"look at the branches and tags of the {kind}"
        raise UserError(f"{url}: no revision {revision}", hint=hint) from error
    except errors.HFValidationError as error:
        raise UserError(f"{url}: {error}", hint=f"the form is {form}") from error
    except errors.LocalEntryNotFoundError as error:
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}:
            raise UserError(f"{url} is not in the cache, and HF_HUB_OFFLINE is set", hint="unset it") from error
        raise _failure(url, access + repository, kind, error) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{url}: the {kind} has no such file", hint="look at its files") from error
    except json.JSONDecodeError as error:  # a proxy's page in the place of an answer
        raise _failure(url, access + repository, kind, error) from error
    except ValueError as error:  # what the library says of a file name that would leave its cache
        raise UserError(f"{url}: {error}", hint="do not use this repository") from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of requests or httpx, by version
        raise _failure(url, access + repository, kind, error) from error


def refuse_damage(url: str, file: Path, matches: Callable[[Path, str], bool]) -> None:
    """Take a file out of the hub's cache where it is not what it is kept as: under its SHA-256, if it is not in
    git itself.

    Args:
        url: for the message.
        file: in a snapshot.
        matches: whether a file has a SHA-256.

    Raises:
        HubFailure: naming the file.
    """
    kept = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", kept.name) and not matches(kept, kept.name):
        file.unlink(missing_ok=True)
        kept.unlink(missing_ok=True)
        raise HubFailure(f"{url}: {file.name} does not have the SHA-256 that the hub gives it")


def _failure(url: str, access: str, kind: str, error: BaseException) -> UserError | RunError:
    """What an HTTP status means: 401 and 403 are the user's; 5xx, or no answer at all, may pass."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    statuses = [getattr(getattr(link, "response", None), "status_code", None) for link in chain]
    status = next((number for number in statuses if number is not None), None)
    if status in (401, 403):
        return UserError(f"{url}: access denied (HTTP {status})", hint=access)
    root = f"{type(chain[-1]).__name__}: {chain[-1]}".splitlines()[0]
    if status is None or status in TRANSIENT:
        reach = f"is there a network? HF_ENDPOINT names another hub, and a {kind} may be local files"
        return HubFailure(f"{url} could not be fetched: {root}\n    {reach}")
    return RunError(f"{url} could not be fetched: {root}")
