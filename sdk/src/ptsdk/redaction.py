"""Secrets, and how they are kept out of everything that is written or shown."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

SECRET_KEY = re.compile(
    r"(^|[_-])(passw(or)?d|passphrase|secret|authorization|credentials?|"
    r"(access|auth|api|hf|bearer|refresh|secret|private)[_-]?(token|key))$|^token$",
    re.IGNORECASE,
)
"""Keys of a job whose values are hidden."""
SECRET_VARIABLE = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET)_?KEY)$", re.IGNORECASE
)
"""Environment variables whose values are hidden, whether or not a job refers to them."""
CREDENTIALS = re.compile(r"(?<=://)[^/\s\"']+(?=@)")
SIGNED = re.compile(
    r"([?&][\w.-]*(token(?!s)|secret|password|signature|credential|api_?key|access_?key|(?<=[?&])sig)[\w.-]*=)[^&#\s\"']+",
    re.IGNORECASE,
)
"""What gives access in the query of a URL."""
HIDDEN = "***"
WHOLE = 6


def environment_secrets(environ: Mapping[str, str] = os.environ) -> set[str]:
    """The values of variables such as ``HF_TOKEN``; short ones would be found everywhere."""
    return {value for name, value in environ.items() if SECRET_VARIABLE.search(name) and len(value) >= 2 * WHOLE}


def hide(text: str, secrets: Collection[str]) -> str:
    """``text`` without ``secrets`` and without credentials in URLs.

    A secret shorter than ``WHOLE`` characters is hidden only where it is the whole text.
    """
    if text in secrets:
        return HIDDEN
    for secret in sorted((s for s in secrets if len(s) >= WHOLE), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return SIGNED.sub(rf"\1{HIDDEN}", CREDENTIALS.sub(HIDDEN, text))


def redact(value: Any, secrets: Collection[str]) -> Any:
    """A tree with every text hidden (``hide``), and whatever text a secret key holds."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(item, str) and SECRET_KEY.search(str(key)) else redact(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(item, secrets) for item in value]
    return hide(value, secrets) if isinstance(value, str) else value


def written_secrets(value: Any) -> set[str]:
    """The texts that secret keys hold anywhere in a tree: written out, where a reference was possible."""
    if isinstance(value, (list, tuple)):
        return {secret for item in value for secret in written_secrets(item)}
    if not isinstance(value, Mapping):
        return set()
    own = {item for key, item in value.items() if isinstance(item, str) and SECRET_KEY.search(str(key))}
    return own.union(*(written_secrets(item) for item in value.values()))
