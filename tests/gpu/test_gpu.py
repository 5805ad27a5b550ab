"""What runs on a GPU alone: its attention kernels, and options and methods beside the plain run there and on a CPU.

`python -m pytest tests/gpu` on a machine with CUDA. Elsewhere these are left out: the same options are held to the
plain path on a CPU by ``tests/matrix``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ptsdk.nn.attention.choice import choose
from ptsdk.nn.attention.cpu import documents_attention
from ptsdk.nn.attention.documents import Documents
from tests.conftest import WriteJob
from tests.matrix.test_grpo_processes import sampled
from tests.matrix.test_invariance import assert_same, trained
from tests.matrix.test_options import METHODS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda", 0)
LENGTHS = (130, 1, 257, 40, 512)
LLAMA = {
    "vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "full": {"activation_checkpointing": "full"},
    "selective": {"activation_checkpointing": "selective"},
    "every-second": {"activation_checkpointing": "full", "activation_checkpointing_every": 2},
    "offloading": {"activation_checkpointing": "full", "activation_offloading": True},
    "in-backward": {"optimizer_in_backward": True},
    "micro-batches": {"micro_batch_size": 2},
    "micro-batch-tokens": {"micro_batch_tokens": 150},
    "async-save": {"async_save": True, "save_every": 2},
    "compiled-model": {"compile": {"model": True}},
    "compiled-loss": {"compile": {"loss": True}},
    "compiled-and-recomputed": {"compile": True, "activation_checkpointing": "selective"},
}
CPU = {"use": "single", "device": "cpu"}
MethodJob = Callable[[str], dict[str, Any]]


def attention_inputs(dtype: torch.dtype) -> list[Tensor]:
    """Queries of eight heads, keys and values of two, and a gradient of the result."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(sum(LENGTHS), heads, 64) for heads in (8, 2, 2, 8)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def differentiated(mix: Any, inputs: list[Tensor]) -> list[Tensor]:
    """What is mixed, and the gradients of queries, keys and values."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs[:3]]
    mixed = mix(*leaves)
    return [mixed.detach(), *torch.autograd.grad(mixed, leaves, inputs[3])]


@pytest.mark.parametrize("window", [None, 48])
@pytest.mark.parametrize(
    ("wish", "dtype", "error"),
    [
        ("sdpa", torch.float32, 1e-5),
        ("flex", torch.float32, 1e-5),
        ("sdpa", torch.bfloat16, 1e-2),
        ("flex", torch.bfloat16, 1e-2),
        ("varlen", torch.bfloat16, 1e-2),
    ],
)
def test_an_attention_kernel(wish: Any, dtype: torch.dtype, error: float, window: int | None) -> None:
    """Against float64 on the CPU, by the norm of the difference."""
    inputs = attention_inputs(dtype)
    bounds = Documents(LENGTHS).bounds

    def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed: Tensor = documents_attention(q, k, v, bounds, 0.125, window)[0]
        return mixed

    attend = choose(wish, CUDA, dtype, 64)(LENGTHS, CUDA)
    expected = differentiated(exact, [tensor.double() for tensor in inputs])
    found = differentiated(
        lambda q, k, v: attend(0, q, k, v, scale=0.125, window=window), [tensor.to(CUDA) for tensor in inputs]
    )
    for mine, other in zip(found, expected, strict=True):
        assert (mine.cpu().double() - other).norm() <= error * other.norm()


@pytest.fixture
def llama_job(job: dict[str, Any]) -> dict[str, Any]:
    optimizer = {"use": "adamw", "lr": 1e-3, "eps": 1e-3}
    model = {"use": "llama", "config": LLAMA, "dtype": "float32"}
    train = {"steps": 4, "batch_size": 8, "seed": 3, "clip_grad_norm": None}
    return {**job, "model": model, "optimizer": optimizer, "train": train}


def test_a_gpu_trains_what_a_cpu_does(llama_job: dict[str, Any], write_job: WriteJob) -> None:
    runs = [
        trained({**llama_job, "strategy": {"use": "single", "device": device}}, write_job, device)
        for device in ("cpu", "cuda")
    ]
    assert_same(runs[1], runs[0], rel=1e-5)


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_trains_the_same(
    name: str, adapter: str | None, llama_job: dict[str, Any], write_job: WriteJob
) -> None:
    if adapter:
        llama_job["adapter"] = {"use": adapter, "rank": 4}
    torch.compiler.reset()
    expected = trained(llama_job, write_job, "plain")
    changed = trained({**llama_job, "train": llama_job["train"] | OPTIONS[name]}, write_job, "changed")
    assert_same(changed, expected, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "liger_cross_entropy"},
        {"optimizer": {"use": "adamw-8bit", "lr": 1e-3}},
        {"optimizer": {"use": "adamw-4bit", "lr": 1e-3}},
        {"model": {"use": "llama", "config": LLAMA, "attention": "sdpa"}},
        {"model": {"use": "llama", "config": LLAMA, "attention": "flex"}},
        {"strategy": "fsdp2"},
    ],
    ids=lambda change: "-".join(change),
)
def test_in_bfloat16(change: dict[str, Any], llama_job: dict[str, Any], write_job: WriteJob) -> None:
    """Losses differ by what bfloat16 rounds, no more."""
    llama_job["optimizer"] = {"use": "adamw", "lr": 1e-3}
    merged = {**llama_job, **change}
    for job in (llama_job, merged):
        job["model"] = {**job["model"], "dtype": "bfloat16"}
    expected = trained(llama_job, write_job, "plain")
    found = trained(merged, write_job, "changed")
    for mine, other in zip(found[0], expected[0], strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-2)


def test_the_same_run_twice_is_the_same(llama_job: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    llama_job["model"] = {**llama_job["model"], "dtype": "bfloat16"}
    first, second = (trained(llama_job, write_job, name) for name in ("first", "second"))
    assert [step["loss"] for step in first[0]] == [step["loss"] for step in second[0]]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


@pytest.fixture
def method_job(llama_job: dict[str, Any], write_job: WriteJob, pairs_file: Path, tmp_path: Path) -> MethodJob:
    """The job of a method, with what it reads beside it."""

    def changed(method: str) -> dict[str, Any]:
        if method == "kd":
            trained({**llama_job, "strategy": CPU}, write_job, "first")
            (tmp_path / "first" / "final").rename(tmp_path / "teacher")
        return llama_job | (sampled(tmp_path) if method == "grpo" else METHODS[method])

    return changed


@pytest.mark.parametrize("method", ["dpo", "kd"])
def test_a_method_trains_what_it_does_on_a_cpu(method: str, method_job: MethodJob, write_job: WriteJob) -> None:
    job = method_job(method)
    cpu = trained({**job, "strategy": CPU}, write_job, "cpu")
    assert_same(trained(job, write_job, "gpu"), cpu, rel=1e-5)


def test_grpo_samples_the_same_where_it_recomputes(method_job: MethodJob, write_job: WriteJob) -> None:
    """A GPU draws other tokens than a CPU, so this is beside the plain run there."""
    job = method_job("grpo")
    plain = trained(job, write_job, "plain")
    recomputing = {**job["train"], "activation_checkpointing": "full", "micro_batch_size": 4}
    found = trained({**job, "train": recomputing}, write_job, "recomputing")
    assert [step["reward/mean"] for step in found[0]] == [step["reward/mean"] for step in plain[0]]
    for name, weight in plain[1].items():
        torch.testing.assert_close(found[1][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["dpo", "kd", "grpo"])
def test_a_method_starts_alike_in_bfloat16(method: str, method_job: MethodJob, write_job: WriteJob) -> None:
    """The first step is of the same weights, but for their rounding."""
    job = method_job(method)
    exact = trained(job, write_job, "float32")
    rounded = trained({**job, "model": {**job["model"], "dtype": "bfloat16"}}, write_job, "bfloat16")
    assert rounded[0][0]["loss"] == pytest.approx(exact[0][0]["loss"], rel=2e-2, abs=2e-2)
