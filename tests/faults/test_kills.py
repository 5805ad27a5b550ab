"""Killed at random moments, resumed, and the same to the last bit; ten deaths in CI, all the rest slow. And resumed
in another number of processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.kills import ALL, METHODS
from tests.faults.worlds import MOVES

MOVED = ("sft-full-packed-2-1", "kd-lora-mixture-1-2", "grpo-full-mixture-2-4")
FEW = (
    "kd-full-1-streamed",
    "sft-lora-1-packed",
    "dpo-full-1-mixture",
    "kd-lora-1-mixture",
    "grpo-full-1-mixture",
    "sft-full-2-mixture",
)


def run_module(name: str, *args: str) -> str:
    """What a script prints, in a process of its own: it forks."""
    done = subprocess.run([sys.executable, "-m", name, *args], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.dist
def test_ten_deaths() -> None:
    assert run_module("tests.faults.kills", "--only", ",".join(FEW), "--kills", "2").count("same bits") == len(FEW)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("method", METHODS)
def test_a_hundred_and_more(method: str) -> None:
    """Five or more for each combination: 120 in all."""
    kills = run_module("tests.faults.kills", "--only", f"{method}-", "--kills", "5", "--seed", "1")
    assert kills.count("same bits") == sum(cell.method == method for cell in ALL)


@pytest.mark.dist
def test_a_run_goes_on_in_another_number_of_processes() -> None:
    assert run_module("tests.faults.worlds", "--only", ",".join(MOVED)).count("same rows, same losses") == len(MOVED)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("method", METHODS)
def test_so_does_every_combination(method: str) -> None:
    moved = run_module("tests.faults.worlds", "--only", f"{method}-")
    assert moved.count("same rows, same losses") == sum(move.cell.method == method for move in MOVES)
