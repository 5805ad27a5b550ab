"""What is found below the shelf, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from ptsdk.errors import UserError
from ptsdk.testing import CheckpointSourceSuite

from ptsdk_example_checkpoint_source.source import ROOT, ExampleSource


class TestConforms(CheckpointSourceSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-checkpoint-source/example-checkpoint-source"  # dist/name


SCHEME = "example-checkpoint-source://"


def test_a_folder_below_the_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "team" / "model").mkdir(parents=True)
    monkeypatch.setenv(ROOT, str(tmp_path))
    assert ExampleSource().fetch(f"{SCHEME}team/model") == tmp_path.resolve() / "team" / "model"


@pytest.mark.parametrize(("place", "words"), [("../x", "leads out"), ("/etc", "leads out"), ("no", "there is no")])
def test_what_is_refused(place: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT, str(tmp_path))
    with pytest.raises(UserError, match=words):
        ExampleSource().fetch(SCHEME + place)
