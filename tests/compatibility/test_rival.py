"""Installing a package changes no job that does not name it, whatever names the package provides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptsdk.job import make_job
from ptsdk.plugins import Entry, Plugins, Record, scan
from ptsdk.registry import Registry
from ptsdk.testing.jobs import job_values

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
