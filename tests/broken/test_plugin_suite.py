"""What the kit asks of a dist as a whole: each mistake fails its test, and nothing else is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptsdk.testing.running import conform
from tests.broken.dists import Dist, losses

REQUIRES = ("ptsdk>=0.1",)
HEAD = "from ptsdk.contracts.loss import TokenLoss\nclass Zero(TokenLoss):\n    "
MADE = 'return [LossSpec("a", "{}.parts:Zero", "Nothing at all")]'
CALL = "def __call__(self, hidden_states, head, labels):\n        raise NotImplementedError\n"

CASES = {
    "test_is_sound": Dist("ptsdk-y-broken", "import nowhere_to_be_found\nPTSDK_API = 1\n", requires=REQUIRES),
    "test_contributes_something": Dist("ptsdk-y-empty", "PTSDK_API = 1\n", requires=REQUIRES),
    "test_components_are_complete_classes": Dist(
        "ptsdk-y-partial", losses(MADE.format("ptsdk_y_partial")), modules={"parts.py": f"{HEAD}pass\n"},
        requires=REQUIRES,
    ),
    "test_caps_no_version_of_ptsdk": Dist(
        "ptsdk-y-capped", losses(MADE.format("ptsdk_y_capped")), modules={"parts.py": HEAD + CALL},
        requires=("ptsdk>=0.1,<2",),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("test", "dist"), CASES.items(), ids=CASES)
def test_is_caught(test: str, dist: Dist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(dist.install(tmp_path)))
    report = conform(dist.name)
    (whole,) = (outcome for outcome in report.outcomes if outcome.suite == "PluginSuite")
    assert list(whole.failed) == [test], whole.failed
    assert not report.ok


def test_every_test_has_its_case() -> None:
    from ptsdk.testing import PluginSuite
    from ptsdk.testing.suite import Suite, standard_tests

    assert set(standard_tests(PluginSuite)) - set(standard_tests(Suite)) == set(CASES)
