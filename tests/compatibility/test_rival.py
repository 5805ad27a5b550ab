"""Installing a package changes no job and no command line that does not name it, whatever its names are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptsdk.cli.doctor import examine
from ptsdk.cli.main import main
from ptsdk.job import make_job
from ptsdk.plugins import Entry, Plugins, Record, scan
from ptsdk.registry import Registry
from ptsdk.testing.jobs import job_values
from tests.broken.dists import Dist

GRPO = {"use": "ptsdk-grpo/grpo", "group_size": 4, "rewards": [{"use": "ptsdk-grpo/length", "target": 12}]}


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return scan()


def with_rival(plugins: Plugins, dist: str) -> Registry:
    """What is installed, and a dist that provides every name of it; nothing of that dist can be imported."""
    names = {(entry.kind, entry.spec.name): entry.spec for record in plugins.records for entry in record.components}
    entries = tuple(
        Entry(kind, replace(spec, target="nowhere:Rival"), dist, "1.0") for (kind, _), spec in names.items()
    )
    rival = Record(dist, "1.0", 1, "loaded", None, entries)
    return Registry(replace(plugins, records=(*plugins.records, rival)))


@pytest.mark.parametrize("method", ["ptsdk/sft", {"use": "ptsdk-dpo/dpo"}, GRPO], ids=["sft", "dpo", "grpo"])
def test_a_job_that_names_nothing_of_it_is_the_same(tmp_path: Path, plugins: Plugins, method: Any) -> None:
    alone, beside = Registry(plugins), with_rival(plugins, "a-rival")
    values = job_values(tmp_path, alone, method)
    for section in ("optimizer", "strategy", "loggers"):
        del values[section]
    expected = make_job(values, alone).resolved()
    found = make_job(values, beside).resolved()
    assert found == expected
    assert "a-rival" not in str(found)


def test_a_class_of_the_user_keeps_the_default_loss_of_what_it_derives_from(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "mine.py").write_text("from ptsdk_dpo.method import DPO\nclass Mine(DPO):\n    pass\n")
    values = job_values(tmp_path, Registry(plugins), "ptsdk-dpo/dpo")
    values["method"] = "./mine.py:Mine"
    job = make_job(values, with_rival(plugins, "a-rival"), tmp_path)
    assert job.entries["loss"].qualified == "ptsdk-dpo/sigmoid"


def test_options_without_use_are_those_of_core(tmp_path: Path, plugins: Plugins) -> None:
    values = job_values(tmp_path, Registry(plugins), "ptsdk/sft") | {
        "optimizer": {"lr": 0.5},
        "tokenizer": {"use": "ptsdk/bytes"},
    }
    job = make_job(values, with_rival(plugins, "a-rival"))
    assert job.entries["optimizer"].qualified == "ptsdk/adamw"


VERBS = """\
from ptsdk.specs import Spec
PTSDK_API = 1
def ptsdk_commands():
    return [Spec("list", "{0}.verb:verb", "Not core's"), Spec("tidy", "{0}.verb:verb", "Puts things away")]
"""
VERB = """\
import click
@click.command()
def verb() -> None:
    click.echo("the one of {0}")
"""


@pytest.fixture
def two_with_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dists that have a verb of core's name, and another one in common; nothing else is let in."""
    for package in ("ptsdk_one", "ptsdk_two"):
        plugin, verb = VERBS.format(package), VERB.format(package)
        Dist(package.replace("_", "-"), plugin, modules={"verb.py": verb}).install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PTSDK_PLUGINS", "ptsdk-one,ptsdk-two")


@pytest.mark.usefixtures("two_with_verbs")
def test_a_verb_of_core_keeps_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    def told(*line: str) -> str:
        assert main(line) == 0
        return capsys.readouterr().out

    assert "cross_entropy" in told("list", "loss")
    assert told("ptsdk-two/list") == "the one of ptsdk_two\n"
    listed = [line.split()[0] for line in told("--help").splitlines() if line.startswith("  ")]
    assert {"list", "ptsdk-one/list", "ptsdk-two/list", "ptsdk-one/tidy", "ptsdk-two/tidy"} <= set(listed)
    assert "tidy" not in listed
    assert "--json" in told("show", "command", "list")


@pytest.mark.usefixtures("two_with_verbs")
def test_a_verb_that_two_have_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tidy"]) == 2
    told = capsys.readouterr().err
    assert "2 plugins provide the command 'tidy': ptsdk-one 1.0, ptsdk-two 1.0" in told
    assert "`ptsdk ptsdk-one/tidy` or `ptsdk ptsdk-two/tidy`" in told
    assert "use:" not in told


@pytest.mark.usefixtures("two_with_verbs")
def test_doctor_tells_both_and_minds_one() -> None:
    plugins = scan()
    clashes = [check for check in examine(plugins, Registry(plugins)) if check.name == "name clash"]
    assert {check.detail.split("'")[1]: check.ok for check in clashes} == {"list": True, "tidy": False}
    assert "write `ptsdk ptsdk-one/list` and `ptsdk ptsdk-two/list`" in clashes[0].detail
