"""Compiled blocks: the same numbers as plain ones, and how many graphs that takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch._inductor import config

from ptsdk.contracts.model import DecoderFamily
from ptsdk.errors import UserError
from ptsdk.job import load_job
from ptsdk.job.sections import TrainSection
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.linear_loss import linear_cross_entropy
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.testing.jobs import assembled, job_values, metrics_of, train
from ptsdk.train.compiling import Graphs, compile_blocks
from ptsdk.train.memory import checkpoint_activations
from ptsdk.train.nonfinite import trace
from ptsdk_gemma.model import Gemma3
from ptsdk_llama.model import Llama
from ptsdk_lora.adapter import Dora, Lora, LowRank
from ptsdk_qwen.model import Qwen2, Qwen3

LENGTHS = ((5,), (3, 9), (20, 4, 2), (7, 1, 1, 30), (40,), (2,) * 11, (13, 12), (33, 8, 1))
"""Of the documents of each batch: no two batches have as many, or as many tokens."""


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def built(family: type[DecoderFamily], adapter: LowRank | None) -> CausalLM:
    """A model of six layers in float64."""
    config = {**family.tiny, "num_hidden_layers": 6}
    made = family(config=config)
    model = made.build(made.full_config(config)).double()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        model.init_weight(name, parameter, generator)
    if adapter:
        adapter.apply(model)
        adapter.init(model, 0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return model


def batches() -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    for lengths in LENGTHS:
        documents = [torch.randint(0, 300, (n,), generator=generator).tolist() for n in lengths]
        yield Batch.pack(documents, [[True] * n for n in lengths])


def numbers(model: CausalLM, batch: Batch) -> list[Tensor]:
    """The loss and every gradient."""
    loss = linear_cross_entropy(model(batch), model.head(), batch.labels)
    trained = [p for p in model.parameters() if p.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, trained)]


def compare(plain: CausalLM, compiled: CausalLM, backend: str) -> int:
    """Whether both give the same numbers on all batches; the number of graphs that took."""
    graphs = Graphs()
    compile_blocks(compiled, backend=backend)
    made = []
    for batch in batches():
        for found, expected in zip(numbers(compiled, batch), numbers(plain, batch), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        graphs.count()
        made.append(graphs.made)
    assert made[0] == made[-1], f"graphs after each batch: {made}"
    return graphs.made


CASES: list[tuple[type[DecoderFamily], Callable[[], LowRank] | None, str, int]] = [
    (Llama, None, "none", 1),
    (Llama, None, "selective", 1),
    (Gemma3, None, "none", 2),
    (Qwen2, None, "full", 2),
    (Qwen3, lambda: Lora(rank=4), "none", 3),
    (Gemma3, lambda: Lora(rank=4), "selective", 3),
    (Llama, lambda: Dora(rank=4), "full", 2),
]
"""The graphs: one for all blocks with a window, one for all without, and under an adapter one for the
first block, whose input needs no gradient."""


@pytest.mark.parametrize(
    ("backend", "family", "adapter", "recomputed", "graphs"),
    [
        ("aot_eager", *CASES[1]),
        *(("eager", *case) for case in CASES[2:6]),
        *(pytest.param("inductor", *case, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_one_graph_for_all_blocks_that_are_alike_and_all_batches(
    backend: str, family: type[DecoderFamily], adapter: Callable[[], LowRank] | None, recomputed: str, graphs: int
) -> None:
    plain, compiled = (built(family, adapter() if adapter else None) for _ in range(2))
    checkpoint_activations(compiled, recomputed)
    assert compare(plain, compiled, backend) == graphs


def job(folder: Path, **options: Any) -> dict[str, Any]:
    return job_values(folder, Registry(scan()), train=options)


@pytest.mark.parametrize("quantizer", ["nf4", "int8", "int4"])
def test_a_packed_base_is_compiled(quantizer: str, tmp_path: Path) -> None:
    registry = Registry(scan())
    values = {**job(tmp_path), "quantizer": quantizer, "adapter": {"use": "lora", "rank": 2}}
    plain, compiled = (assembled(values, registry, tmp_path).model.double() for _ in range(2))
    assert compare(plain, compiled, "eager") == 2


def test_a_run_counts_its_graphs_and_tells_of_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    registry, rows = Registry(scan()), {}
    for compiled in (False, True):
        train(job(tmp_path, compile=compiled), registry, tmp_path)
        rows[compiled] = metrics_of(tmp_path / "run")
    for plain, row in zip(rows[False], rows[True], strict=True):
        assert row["loss"] == pytest.approx(plain["loss"], rel=1e-5)
        assert row["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)
        assert (plain.get("compiled_graphs"), row["compiled_graphs"]) == (None, 1)
    told = [line for line in capfd.readouterr().err.splitlines() if "torch.compile" in line]
    assert told == ["ptsdk: step 1: torch.compile made 1 graph, 1 in all"]


def test_a_number_that_is_not_finite_is_found_inside_a_compiled_block(tmp_path: Path) -> None:
    run = assembled(job(tmp_path), Registry(scan()), tmp_path)
    compile_blocks(run.model, backend="aot_eager")
    weight = run.model.get_parameter("model.layers.1.mlp.up_proj.weight")
    with torch.no_grad():
        weight[0, 0] = torch.nan
    origin = trace(run, next(iter(run.job.method.batches(run))), again=True)
    assert "model.layers.1.mlp.up_proj.weight" in str(origin)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["muon", "lion"])
def test_a_compiled_update_is_the_update(tmp_path: Path, name: str) -> None:
    """At a rate that changes each step, and resumed from a checkpoint."""
    registry, losses = Registry(scan()), {}
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        folder.mkdir()
        values = job(folder, compile={"optimizer": compiled}, steps=6, save_every=3)
        values |= {"optimizer": {"use": name, "lr": 0.01}, "schedule": {"use": "cosine", "warmup": 2}}
        train(values, registry, folder)
        rows = metrics_of(folder / "run")
        losses[compiled] = [row["loss"] for row in rows]
        if compiled:
            assert [row["compiled_graphs"] for row in rows[1:]] == [rows[1]["compiled_graphs"]] * 5
            for left in (folder / "run" / "checkpoints" / "step-00000006", folder / "run" / "final"):
                shutil.rmtree(left)
            train(values, registry, folder, resume=True)
            assert [row["loss"] for row in metrics_of(folder / "run")] == pytest.approx(losses[True], rel=1e-4)
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)


def test_nothing_compiles_cpp_here(tmp_path: Path) -> None:
    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(UserError) as refused:
        assembled(job(tmp_path, compile=True), Registry(scan()), tmp_path)
    assert refused.value.problems[0].path == "train.compile"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (True, {"model": True, "loss": False, "optimizer": False}),
        (False, {"model": False, "loss": False, "optimizer": False}),
        ({"optimizer": True}, {"model": False, "loss": False, "optimizer": True}),
        ({"loss": True}, {"model": False, "loss": True, "optimizer": False}),
        ({}, {"model": False, "loss": False, "optimizer": False}),
    ],
)
def test_what_a_job_may_say(given: Any, found: dict[str, bool]) -> None:
    section = TrainSection(compile=given).compile
    assert section.model_dump() == found
    assert bool(section) == any(found.values())


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ("soon", "train.compile", "expected true, false or a mapping"),
        ("{optimiser: true}", "train.compile.optimiser", "unknown key"),
        ("{model: often}", "train.compile.model", "expected true or false"),
    ],
)
def test_what_a_job_may_not_say(tmp_path: Path, given: str, path: str, message: str) -> None:
    values = job(tmp_path)
    del values["train"]
    file = tmp_path / "job.yaml"
    file.write_text(f"{yaml.safe_dump(values)}train:\n  compile: {given}\n")
    with pytest.raises(UserError) as refused:
        load_job(file, (), Registry(scan()))
    (problem,) = refused.value.problems
    assert (problem.path, problem.line) == (path, file.read_text().count("\n"))
    assert problem.message.startswith(message)
