"""``train.compile: {loss: true}``: the numbers of the plain path, in few graphs for all batches, in every method."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ptsdk.nn import linear_loss, vocabulary_tiles
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.nn.linear_loss import linear_cross_entropy, linear_log_probs
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.testing.jobs import assembled, job_values
from ptsdk.train.compiling import Graphs
from ptsdk_kd.linear_kd import linear_distillation
from ptsdk_kd.losses import JSD
from tests.conftest import WriteJob
from tests.matrix.test_invariance import assert_same, trained
from tests.matrix.test_options import METHODS, UPDATES

ROWS = (40, 11, 2, 25, 34, 19)
WORDS, WIDTH = 23, 6


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def cross_entropy(hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
    return linear_cross_entropy(hidden, head, labels)


def log_probs(hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
    values = linear_log_probs(hidden, head, labels)
    return (values * torch.linspace(-1, 2, len(values), dtype=values.dtype)).sum()


def distillation(hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
    teacher = Head(head.weight.detach().flip(0), softcap=3.0)
    return linear_distillation(hidden, head, hidden.detach().cos(), teacher, labels, JSD(beta=0.3), 0.6).total


def numbers(loss: Any, head: Head, rows: int) -> list[Tensor]:
    """The loss and every gradient."""
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(WORDS, (rows,), generator=generator)
    labels[::5] = IGNORE
    value = loss(hidden, head, labels)
    return [value.detach(), *torch.autograd.grad(value, [hidden, *([head.weight] * head.weight.requires_grad)])]


@pytest.mark.parametrize("loss", [cross_entropy, log_probs, distillation])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_numbers_of_the_plain_path_in_few_graphs(
    monkeypatch: pytest.MonkeyPatch, loss: Any, softcap: float | None, trains: bool, backend: str
) -> None:
    """A few rows make more than a block, and no tile divides the vocabulary."""
    monkeypatch.setattr(linear_loss, "CHUNK_ELEMENTS", 7 * WORDS)
    monkeypatch.setattr(vocabulary_tiles, "TILE", 9)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend, fullgraph=True))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(WORDS, WIDTH, generator=generator, dtype=torch.float64).requires_grad_(trains)
    graphs, made = Graphs(), []
    for rows in ROWS:
        plain, compiled = (numbers(loss, Head(weight, None, softcap, choice), rows) for choice in (False, True))
        for found, expected in zip(compiled, plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        graphs.count()
        made.append(graphs.made)
    assert made[0] > 0, "nothing was compiled"
    functions = 2 if loss is log_probs and trains else 1  # where a head trains, the backward has its own
    assert made[2] == made[-1] <= 3 * functions, f"for a whole block, a part and a single row; so far: {made}"


@pytest.mark.parametrize("method", METHODS)
def test_a_run_trains_the_same(
    method: str,
    job: dict[str, Any],
    write_job: WriteJob,
    pairs_file: Path,
    tmp_path: Path,
) -> None:
    """And the next run in this process is not compiled."""
    job["train"] = {"steps": 3, "batch_size": 8, "seed": 3}
    if method == "kd":
        trained(job, write_job, "first")
        (tmp_path / "first" / "final").rename(tmp_path / "teacher")
    job |= METHODS[method] | UPDATES["full"]
    graphs, made, expected = Graphs(), [], []
    for name, loss in (("plain", False), ("compiled", True), ("again", False)):
        job["train"]["compile"] = {"loss": loss}
        expected.append(trained(job, write_job, name))
        made.append(graphs.count())
    assert_same(expected[1], expected[0], rel=2e-6)
    assert_same(expected[2], expected[0], rel=0)
    assert made[0] == made[2] == 0 < made[1]


def test_frozen_models_are_compiled_as_the_policy_is(tmp_path: Path) -> None:
    """Or at the first step of dpo the two would not have the same log-probs."""
    registry = Registry(scan())
    job = job_values(tmp_path, registry, "dpo", train={"compile": {"loss": True}})
    run = assembled(job, registry, tmp_path)
    assert [model.head().compiled for model in (run.model, *run.frozen.values())] == [True, True]
