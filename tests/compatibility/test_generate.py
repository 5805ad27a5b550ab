"""The reference pages are of this repository's packages, whatever else is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptsdk.errors import UserError
from tests.broken.dists import HEAD, Dist
from tests.conftest import docs_script

generate = docs_script("generate")
LOSS = "def ptsdk_losses():\n    return [LossSpec('stranger', 'ptsdk.builtin.losses:CrossEntropy')]\n"
STRANGER = Dist("ptsdk-stranger", HEAD + LOSS)
BROKEN = Dist("ptsdk-wreck", "import nothing_of_that_name\n")


def test_what_others_installed_is_not_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dist in (STRANGER, BROKEN):
        dist.install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PTSDK_DISABLE", "ptsdk-lora")
    registry = generate.workspace()
    found = {entry.dist for kind in ("loss", "adapter") for entry in registry.entries(kind)}
    assert {"ptsdk", "ptsdk-lora", "ptsdk-label-smoothing"} <= found
    assert "ptsdk-stranger" not in found
    assert "stranger" not in generate.schema(registry)


def test_a_package_that_is_missing_is_no_shorter_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sdk").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["sdk"]\n')
    (tmp_path / "sdk" / "pyproject.toml").write_text('[project]\nname = "ptsdk-forgotten"\n')
    monkeypatch.setattr(generate, "HERE", tmp_path / "docs")
    with pytest.raises(UserError, match="'ptsdk-forgotten' is installed"):
        generate.workspace()
