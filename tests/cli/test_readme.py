"""What the README shows is true: its job is a job, its plugin is a plugin."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import WriteJob, metrics, ptsdk

TEXT = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 300}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_job_has_no_fault(write_job: WriteJob, rows: Path) -> None:
    """All of it but the weights, which are behind a hub."""
    job = yaml.safe_load(blocks("yaml")[0])
    done = ptsdk("check", str(write_job(job | {"model": {"use": "llama", "config": TINY}, "tokenizer": "bytes"})))
    assert done.returncode == 0, done.stderr


def test_the_loss_trains_without_packaging(job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    (tmp_path / "loss.py").write_text(blocks("python")[1])
    job["train"]["steps"] = 2
    local = re.search(r"`(loss: \{use: \./.*?\})`", TEXT)
    assert local is not None
    done = ptsdk("run", str(write_job(job | yaml.safe_load(local[1]))))
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "run")[-1]["loss"] > 0


def test_the_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    package, info = tmp_path / "ptsdk_smooth", tmp_path / "ptsdk_smooth-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    for source in blocks("python"):
        (package / source.partition(":")[0].rpartition("/")[2]).write_text(source)
    point = blocks("toml")[0].replace("[project.entry-points.ptsdk]", "[ptsdk]").replace('"', "")
    (info / "entry_points.txt").write_text(point)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ptsdk-smooth\nVersion: 1.0\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    shown = ptsdk("show", "loss", "focal", PYTHONPATH=path)
    assert shown.returncode == 0, shown.stderr
    assert "how fast easy tokens are forgotten" in shown.stdout
