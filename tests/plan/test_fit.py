"""``ptsdk.plan.fit`` against going through every set of techniques, on small jobs."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ptsdk.errors import UserError
from ptsdk.plan.estimate import Plan, Planner
from ptsdk.plan.fit import Fit, Search, fit, overrides_of
from ptsdk.plan.ladder import Technique, techniques_for
from ptsdk.plan.rehearsal import Held
from ptsdk.plugins import scan
from ptsdk.registry import Registry

SHAPES: dict[str, tuple[dict[str, int], int]] = {
    "activations": ({"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64}, 400),
    "weights": ({"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 512}, 12),
}
AXES = ("step", "micro-batch", "recompute", "dtype")


class Counting(Planner):
    """A planner that knows what it was asked, and of which sets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.asked: set[tuple[str, ...]] = set()
        super().__init__(*args, **kwargs)

    def plan(self, *overrides: str, processes: int | None = None) -> Plan:
        self.asked.add(overrides)
        return super().plan(*overrides, processes=processes)


@pytest.fixture(params=["activations", pytest.param("weights", marks=pytest.mark.slow)])
def planner(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setattr("ptsdk.plan.fit.techniques_for", _few)
    monkeypatch.setattr(Planner, "device", torch.device("cuda", 0))  # where offloading is a technique too
    shape, length = SHAPES[request.param]
    (tmp_path / "train.jsonl").write_text('{"text": "some words"}\n')
    job = {
        "api": 1,
        "model": {"use": "tiny", "config": shape},
        "tokenizer": "bytes",
        "data": {"train": {"use": "text", "path": "train.jsonl"}},
        "method": "sft",
        "train": {"steps": 2, "batch_size": 2, "micro_batch_size": 2},
        "output_dir": "run",
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    return Counting(tmp_path / "job.yaml", (), Registry(scan()), length=length)


def _few(*args: Any) -> Iterator[Technique]:
    """Techniques of which every set is soon planned."""
    yield from (technique for technique in techniques_for(*args) if technique.axis in AXES)


def brute(planner: Planner) -> list[Fit]:
    """Every set that is not refused, the cheapest first."""
    found = []
    for choice in Search(planner, 0).sets:
        try:
            found.append(Fit(0, choice, planner.plan(*overrides_of(choice))))
        except UserError:
            continue
    return found


def test_the_cheapest_set_is_found_without_planning_all(planner: Counting) -> None:
    every = brute(planner)
    totals = sorted({found.plan.total for found in every})
    counts = []
    for limit in totals:
        planner.asked.clear()
        found = fit(planner, limit)
        first = next(one for one in every if one.plan.total <= limit)
        assert found == dataclasses.replace(first, limit=limit)
        counts.append(len(planner.asked))
    assert statistics.mean(counts) < 0.6 * len(every)
    planner.asked.clear()
    nothing = fit(planner, totals[0] - 1)
    assert len(planner.asked) < 0.6 * len(every)
    assert not nothing.ok and nothing.plan.total == totals[0]

    for found in every:
        held = planner.held(*overrides_of(found.choice))
        assert held.held <= found.plan.total
        assert held == Held(*(getattr(found.plan.trace, field.name) for field in dataclasses.fields(Held)))
