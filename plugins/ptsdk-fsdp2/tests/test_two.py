"""two.py, in two processes: everything the strategy does beside the same in plain torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

START = """
import sys
from ptsdk.cli.processes import run_together
sys.exit(run_together([sys.executable, sys.argv[1]], 2, {"OMP_NUM_THREADS": "1"}))
"""


@pytest.mark.dist
def test_two_processes() -> None:
    script = Path(__file__).with_name("two.py")
    command = [sys.executable, "-c", START, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == re.findall(r"^@check\ndef (\w+)", script.read_text(), re.MULTILINE)
