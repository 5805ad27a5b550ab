"""The verb, as ``ptsdk`` calls it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from ptsdk.errors import UserError
from ptsdk.testing import CommandSuite

from ptsdk_example_command.command import report


class TestConforms(CommandSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-command/example-command"  # dist/name


def test_the_last_row_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 1.5}\n')
    assert CliRunner().invoke(report, [str(tmp_path)]).output == f"{tmp_path / 'a'}: step 2, loss 1.5000\n"
    shown = json.loads(CliRunner().invoke(report, [str(tmp_path), "--json"]).output)
    assert shown == {str(tmp_path / "a"): {"step": 2, "loss": 1.5}}


def test_a_folder_without_runs(tmp_path: Path) -> None:
    assert isinstance(CliRunner().invoke(report, [str(tmp_path)]).exception, UserError)
