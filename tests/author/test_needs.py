"""What the guide says of a plugin that needs another one, and of a suite that deviates."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ptsdk.cli.main import main
from ptsdk.testing import LossSuite
from tests.broken.dists import Dist
from tests.conftest import WriteJob

MINE = Path(__file__).with_name("mine")


class TestDeviates(LossSuite):
    component = "ptsdk/cross_entropy"
    deviations = {"test_is_finite_at_extremes": "log-probs below -100 are refused"}


@pytest.mark.parametrize("verb", ["check", "doctor"])
def test_the_extra_is_named(
    verb: str,
    job: dict[str, Any],
    write_job: WriteJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    extras = tomllib.loads((MINE / "extras.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    mine = Dist(
        "ptsdk-mine",
        (MINE / "plugin.py").read_text("utf-8"),
        modules={"loss.py": "from ptsdk.builtin.losses import CrossEntropy as Paired\n"},
        requires=tuple(f"{need}; extra == '{extra}'" for extra, needs in extras.items() for need in needs),
        extras=tuple(extras),
    )
    monkeypatch.setenv("PTSDK_PLUGINS", "ptsdk-mine")
    monkeypatch.syspath_prepend(mine.install(tmp_path / "site"))
    arguments = [str(write_job(job | {"loss": "paired"}))] if verb == "check" else []
    main([verb, *arguments])
    said = " ".join(str(capsys.readouterr()).replace("\\n", " ").split())
    assert "paired" in said and "needs ptsdk-other>=2, which is not installed" in said
    assert "ptsdk-mine[other]" in said
