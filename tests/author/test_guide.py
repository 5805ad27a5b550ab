"""What docs/writing-a-plugin.md shows and says is so."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import ptsdk
from ptsdk.cli.main import main
from ptsdk.contracts.run import Run
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.specs import KINDS, Spec
from ptsdk_templates.naming import Names
from ptsdk_templates.rendering import rendered
from tests.conftest import WriteJob, docs_script, metrics

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "writing-a-plugin.md").read_text("utf-8")
slices = docs_script("slices")


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_every_block_is_the_slice_it_says(page: Path) -> None:
    text = page.read_text("utf-8")
    assert slices.filled(text) == text, "run python docs/generate.py"


def test_all_of_the_code_is_sliced() -> None:
    blocks = re.findall(r"(<!-- [^\n]*-->\n)?```(?:python|toml)\n", GUIDE)
    assert blocks and all(blocks)


def test_a_stale_block_is_filled_anew() -> None:
    marker = "<!-- slice: contrib/ptsdk-lion/src/ptsdk_lion/optimizer.py#Lion.build -->\n"
    filled = slices.filled(f"{marker}```python\nold\n```\nafter")
    assert filled.startswith(f"{marker}```python\ndef build(self, parameters")
    assert filled.endswith("```\nafter")
    assert "old" not in filled
    table = slices.filled("<!-- slice: sdk/pyproject.toml#[project.scripts] -->\n```toml\n```\n")
    assert '[project.scripts]\nptsdk = "ptsdk.cli.main:main"\n```' in table


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("<!-- slice: sdk/pyproject.toml -->\n\n```\n```", "1 markers, but 0"),
        ("<!-- slice: docs/slices.py#nothing -->\n```\n```", "there is no nothing"),
        ("<!-- slice: sdk/pyproject.toml#[nothing] -->\n```\n```", r"there is no \[nothing\]"),
    ],
)
def test_a_marker_that_means_nothing_is_an_error(page: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        slices.filled(page)


def test_the_commands_are_verbs() -> None:
    blocks = "\n".join(re.findall(r"```\n(.*?)```", GUIDE, re.DOTALL))
    verbs = set(re.findall(r"^ptsdk ([a-z-]+)", blocks, re.MULTILINE))
    verbs |= set(re.findall(r"`ptsdk ([a-z][a-z-]*)", GUIDE))
    assert {"new-plugin", "run", "list", "show", "check", "doctor", "plugins", "schema", "conform"} <= verbs
    assert verbs <= set(Registry(scan()).names("command"))


def test_the_files_and_kinds_are_all_there() -> None:
    table = set(re.findall(r"^\| `([\w./]+)` \|", GUIDE, re.MULTILINE)) & set(
        rendered(Names("loss", "label-smoothing"))
    )
    assert len(table) == 6
    listed = re.search(r"The kinds are `([^`]+)`", GUIDE)
    assert listed is not None
    assert sorted(listed[1].split()) == sorted(KINDS)


def test_a_spec_takes_what_the_table_says() -> None:
    rows = re.findall(r"^\| `(requires|conflicts|supports|why)=(.+?)` \|", GUIDE, re.MULTILINE)
    assert {name for name, _ in rows} == {"requires", "conflicts", "supports", "why"}
    for name, value in rows:
        Spec("x", "a:B", **{name: eval(value)})


def test_a_file_first(job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    source = ROOT / "contrib" / "ptsdk-label-smoothing" / "src" / "ptsdk_label_smoothing" / "loss.py"
    shutil.copy(source, tmp_path)
    local = re.search(r"```yaml\n(loss: .*?)```", GUIDE, re.DOTALL)
    assert local is not None
    job["train"]["steps"] = 1
    assert main(["run", str(write_job(job | yaml.safe_load(local[1])))]) == 0


def test_a_logger_gets_the_metrics_that_are_listed(job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    listed = re.search(r"row of `metrics.jsonl`: `([^`]+)`", GUIDE)
    assert listed is not None
    job["train"] |= {"steps": 1, "validate_every": 1}
    job["data"]["validation"] = job["data"]["train"]
    ptsdk.run(write_job(job))
    trained, validated = metrics(tmp_path / "run")
    assert set(listed[1].split()) == set(trained)
    assert all(name in ("step", "epoch") or name.startswith("val/") for name in validated)


def test_what_a_run_has_for_a_listener() -> None:
    assert {"scratch", "output_dir"} <= {*Run.__dataclass_fields__, *vars(Run)}
