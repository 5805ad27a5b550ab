"""What an author and then a user do with new packages, in an environment that has ptsdk and little else.

Run by that environment's python with the folders of the packages; prints a JSON object. One process for all
of them, because importing torch is what takes the time.

    python driver.py FOLDER ...
"""

from __future__ import annotations

import io
import json
import os
import sys
import xml.etree.ElementTree as ET
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from ptsdk.cli.main import main


def ptsdk(*arguments: str) -> dict[str, Any]:
    """One command line: its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def tested(folders: list[Path]) -> dict[str, list[str]]:
    """pytest over all the packages: package -> its tests that passed."""
    report = Path("report.xml").resolve()
    tests = [str(folder / "tests") for folder in folders]
    with redirect_stdout(sys.stderr):
        code = pytest.main(["--import-mode=importlib", "-p", "no:cacheprovider", "-q", f"--junitxml={report}", *tests])
    if code:
        sys.exit(f"pytest ended with {code}")
    owner = {path.stem: folder.name for folder in folders for path in folder.glob("tests/test_*.py")}
    passed: dict[str, list[str]] = {folder.name: [] for folder in folders}
    for case in ET.parse(report).iter("testcase"):
        module = next(part for part in case.attrib["classname"].split(".") if part in owner)
        passed[owner[module]].append(case.attrib["name"])
    return passed


def used(folder: Path) -> dict[str, Any]:
    """The package's own job, checked and run."""
    job, output = folder / "example" / "job.yaml", f"output_dir={folder / 'run'}"
    if not job.exists():
        return {}
    return {"check": ptsdk("check", str(job), "--json"), "run": ptsdk("run", str(job), output)}


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    packages = [Path(name) for name in sys.argv[1:]]
    result = {
        "plugins": json.loads(ptsdk("plugins", "--json")["out"]),
        "tests": tested(packages),
        "conform": {folder.name: ptsdk("conform", folder.name, "--json") for folder in packages},
        "jobs": {folder.name: used(folder) for folder in packages},
    }
    print(json.dumps(result))
