"""What a real run leaves in the file."""

from __future__ import annotations

import os
from pathlib import Path

import ptsdk
from ptsdk.testing import LoggerSuite


class TestConforms(LoggerSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-logger/example-logger"  # dist/name


JOB = Path(__file__).parents[1] / "example" / "job.yaml"


def test_a_line_every_second_step(tmp_path: Path) -> None:
    ptsdk.run(JOB, overrides=[f"output_dir={tmp_path / 'run'}"])
    lines = (tmp_path / "run" / "progress.txt").read_text("utf-8").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["step 2", "step 4"]
    assert os.path.getsize(tmp_path / "run" / "metrics.jsonl") > 0
