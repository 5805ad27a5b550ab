"""Where tensors lie."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import resource
import torch
from ptsdk.train.memory import use_huge_pages
use_huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.empty(2**24).fill_(0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not PAGES.exists() or "[never]" in PAGES.read_text(), reason="this system has no huge pages")
def test_large_tensors_lie_on_huge_pages() -> None:
    """64 MiB are 16384 small pages."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 4000
