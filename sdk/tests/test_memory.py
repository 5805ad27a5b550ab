"""Where tensors lie."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ptsdk.builtin.tiny import Tiny
from ptsdk.nn.batch import Batch
from ptsdk.train import memory

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


@pytest.mark.parametrize(("tokens", "grad", "given"), [(40_000, True, 1), (40_000, False, 0), (40, True, 0)])
def test_holes_are_given_back_where_much_waits(
    tokens: int, grad: bool, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[None] = []
    monkeypatch.setattr(memory, "give_back_freed", lambda: called.append(None))
    family = Tiny()
    model = family.build(family.full_config(family.config or {}))
    memory.give_back_holes(model)
    with torch.set_grad_enabled(grad):
        model(Batch.pack([[1]] * tokens))
    assert len(called) == given
