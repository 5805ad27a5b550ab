"""A plugin that builds on another one: it resolves where both are installed, and its absence is explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptsdk.cli.main import main
from tests.broken.dists import HEAD, Dist
from tests.conftest import WriteJob

NEEDY = Dist(
    "ptsdk-y-needy",
    HEAD
    + "def ptsdk_losses():\n"
    + '    target = "ptsdk.builtin.losses:CrossEntropy"\n'
    + '    return [LossSpec("by-package", target, requires=("ptsdk-y-other>=2",)),\n'
    + '            LossSpec("by-name", target, requires=("optimizer:ptsdk-y-other/special",)),\n'
    + '            LossSpec("by-capability", target, requires=("optimizer:+special",)),\n'
    + '            LossSpec("by-hint", target, requires=("adapter:lora",)),\n'
    + '            LossSpec("by-nothing", target, requires=("adapter:zork",)),\n'
    + '            LossSpec("by-typo", target, requires=("adapter:ful",))]\n',
    requires=("ptsdk-y-other>=2; extra == 'other'",),
    extras=("other",),
)
OTHER = Dist(
    "ptsdk-y-other",
    HEAD
    + "def ptsdk_optimizers():\n"
    + '    return [Spec("special", "ptsdk.builtin.optimizers:SGD", supports=frozenset({"special"}))]\n',
    version="2.0",
)
LOSSES = ("by-package", "by-name", "by-capability", "by-hint", "by-nothing", "by-typo")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``ptsdk-y-needy`` and core alone, until a test installs more there."""
    monkeypatch.setenv("PTSDK_PLUGINS", "ptsdk-y-needy,ptsdk-y-other")
    folder = NEEDY.install(tmp_path / "site")
    monkeypatch.syspath_prepend(folder)
    return folder


def faults(capsys: pytest.CaptureFixture[str], path: Path) -> list[tuple[str, str, str]]:
    main(["check", str(path), "--json"])
    return [(e["path"], e["message"], e["hint"]) for e in json.loads(capsys.readouterr().out)["errors"]]


@pytest.mark.parametrize(
    ("loss", "message", "hint"),
    [
        (
            "by-package",
            "loss by-package needs ptsdk-y-other>=2, which is not installed",
            "pip install 'ptsdk-y-needy[other]'",
        ),
        (
            "by-name",
            "loss by-name needs optimizer ptsdk-y-other/special in the same job, and no installed plugin "
            "provides the optimizer ptsdk-y-other/special",
            "pip install ptsdk-y-other",
        ),
        (
            "by-capability",
            "loss by-capability needs an optimizer that supports special in the same job, and no installed plugin "
            "has an optimizer that supports special",
            "install a plugin with such an optimizer; `ptsdk list optimizer` shows those that are here",
        ),
    ],
)
def test_check_says_what_to_install(
    loss: str,
    message: str,
    hint: str,
    installed: Path,
    job: dict[str, Any],
    write_job: WriteJob,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert faults(capsys, write_job(job | {"loss": loss})) == [("loss", message, hint)]


def test_a_known_package_is_named(
    installed: Path, job: dict[str, Any], write_job: WriteJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """Installed, but blocked here: that is the reason then, not that it is missing."""
    ((_, message, hint),) = faults(capsys, write_job(job | {"loss": "by-hint"}))
    assert message.startswith("loss by-hint needs adapter lora in the same job, and no installed plugin provides")
    assert "ptsdk-lora is disabled" in message or hint == "pip install ptsdk-lora"


def test_doctor_says_the_same(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 1
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"] if not c["ok"]}
    assert set(checks) >= {f"loss ptsdk-y-needy/{loss}" for loss in LOSSES}
    by_package = checks["loss ptsdk-y-needy/by-package"]
    assert (by_package["detail"], by_package["fix"]) == (
        "needs ptsdk-y-other>=2, which is not installed",
        "pip install 'ptsdk-y-needy[other]'",
    )
    assert checks["loss ptsdk-y-needy/by-name"]["fix"] == "pip install ptsdk-y-other"
    nothing = checks["loss ptsdk-y-needy/by-nothing"]
    assert nothing["detail"] == "cannot be used: no installed plugin provides the adapter zork"
    assert nothing["fix"] == "install a plugin with such an adapter; `ptsdk list adapter` shows those that are here"
    assert checks["loss ptsdk-y-needy/by-typo"]["fix"] == "did you mean full?"
    assert "cannot be used: no installed plugin has" in checks["loss ptsdk-y-needy/by-capability"]["detail"]


@pytest.mark.parametrize("loss", LOSSES[:3])
def test_with_both_installed_it_resolves(
    loss: str, installed: Path, job: dict[str, Any], write_job: WriteJob, capsys: pytest.CaptureFixture[str]
) -> None:
    OTHER.install(installed)
    assert faults(capsys, write_job(job | {"loss": loss, "optimizer": {"use": "special", "lr": 0.1}})) == []
    found = faults(capsys, write_job(job | {"loss": loss}))
    expected = {
        "by-package": [],
        "by-name": ["set `optimizer: ptsdk-y-other/special`"],
        "by-capability": ["set `optimizer: special`"],
    }
    assert [hint for _, _, hint in found] == expected[loss]


def test_an_older_version_is_not_enough(
    installed: Path, job: dict[str, Any], write_job: WriteJob, capsys: pytest.CaptureFixture[str]
) -> None:
    Dist(OTHER.name, OTHER.plugin, version="1.9").install(installed)
    assert [path for path, _, _ in faults(capsys, write_job(job | {"loss": "by-package"}))] == ["loss"]


def test_an_extra_is_met_when_what_it_brings_is(installed: Path) -> None:
    from ptsdk.registry import unmet

    assert unmet(["ptsdk-y-needy[other]", "ptsdk-y-needy"]) == ("ptsdk-y-needy[other]",)
    OTHER.install(installed)
    assert unmet(["ptsdk-y-needy[other]"]) == ()


def test_show_says_what_is_required_and_from_whom(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "loss", "by-package", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["dist"], shown["version"]) == ("ptsdk-y-needy", "1.0")
    assert (shown["requires"], shown["missing"]) == (["ptsdk-y-other>=2"], ["ptsdk-y-other>=2"])
    assert {"supports", "conflicts", "why", "options", "objective"} <= set(shown)
