"""What a source of checkpoints has to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest

from ptsdk.contracts.checkpoint import CheckpointSource
from ptsdk.errors import PtsdkError
from ptsdk.testing.suite import ComponentSuite

SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*$")


class CheckpointSourceSuite(ComponentSuite):
    """For the kind ``checkpoint-source``; no network is used (``HF_HUB_OFFLINE`` is set).

    Attributes:
        url: something it can fetch here, by default the component's ``example_url``; without one, what
            it fetches is not looked at, and the test is skipped.
    """

    kind: ClassVar[str] = "checkpoint-source"
    url: ClassVar[str] = ""

    def fetch(self, url: str, *, weights: bool = True) -> Path:
        """The local path."""
        source: CheckpointSource = self.make()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_HUB_OFFLINE", "1")
            return source.fetch(url, weights=weights)

    def test_declares_schemes(self) -> None:
        """Its spec says which URLs are its own, else no job would ever reach it."""
        assert self.spec.schemes, "its spec has no `schemes`"
        bad = [scheme for scheme in self.spec.schemes if not SCHEME.match(scheme)]
        assert not bad, f"{', '.join(bad)}: write the part of a URL before ://"

    def test_says_what_is_not_there(self) -> None:
        """A place that does not exist is an error that is told in a line, not a traceback; nothing is returned."""
        for scheme in self.spec.schemes or ("none",):
            for rest in ("no-such-place-/at-all-", "", "../../etc"):
                with pytest.raises(PtsdkError):
                    self.fetch(f"{scheme}://{rest}")

    def test_fetches_the_same_twice(self) -> None:
        """A URL is a local path that exists, the same each time, with or without its weights."""
        url = self.url or self.cls.example_url
        if not url:
            pytest.skip("there is nothing to fetch without a network: give it an `example_url`")
        paths = [self.fetch(url), self.fetch(url), self.fetch(url, weights=False)]
        assert all(path.exists() for path in paths), "it returned a path that is not there"
        assert paths[0] == paths[1], f"the same URL was fetched to {paths[0]}, then to {paths[1]}"
