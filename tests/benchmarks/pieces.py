"""Parts of a step by themselves, beside what would stand in their place: attention, losses, compiled ones, optimizers.

    make .venv-triton/.installed && python -m tests.benchmarks.pieces [--record]

Times are of a CPU, medians in turns. Liger's kernels are for a GPU: Triton's interpreter runs them here one number
after another, which says what they hold in memory and whether they are right, not how fast they are. ``--record``
writes ``pieces.json``, from which docs/speed.md and docs/memory.md have their tables.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ptsdk.nn.head import Head

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "pieces.json"
TRITON = ROOT / ".venv-triton"
HEADS, KV_HEADS, SIZE = 8, 4, 64
TOKENS = 4096
DOCUMENTS = {
    "one of 4096 tokens": (TOKENS,),
    "8 of 512": (512,) * 8,
    "25 of 16 to 512": (512, 16, 256, 32, 128, 64) * 4 + (64,),
}
ROUNDS = 7
ROWS, WIDTH, VOCABULARY = 1024, 256, 128_256

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


def each_by_itself(lengths: tuple[int, ...]) -> Mix:
    """What ptsdk does on a CPU."""
    from ptsdk.nn.attention.documents import Documents

    attend = Documents.of(lengths, torch.device("cpu"))
    return lambda q, k, v: attend(0, q, k, v, scale=SIZE**-0.5, window=None)


def masked(lengths: tuple[int, ...]) -> Mix:
    """All of them in one call, with a mask of who sees whom: packing as it is usually done without a kernel for it."""
    number = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = (number[:, None] == number[None]).tril()

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = [t.transpose(0, 1)[None] for t in (q, k, v)]
        mixed = scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=True)
        return mixed[0].transpose(0, 1)

    return mix


def padded(lengths: tuple[int, ...]) -> Mix:
    """A row each, as long as the longest: no packing."""
    longest = max(lengths)
    there = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]

    def rows(t: Tensor) -> Tensor:
        return t.new_zeros(len(lengths), longest, *t.shape[1:]).index_put((there,), t).transpose(1, 2)

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed = scaled_dot_product_attention(rows(q), rows(k), rows(v), is_causal=True, enable_gqa=True)
        return mixed.transpose(1, 2)[there]

    return mix


WAYS = {"each by itself": each_by_itself, "one call, masked": masked, "padded": padded}


def attention() -> dict[str, Any]:
    """Milliseconds of forward and backward, and bytes at the peak, of each way; all of them give the same numbers."""
    found: dict[str, Any] = {}
    generator = torch.Generator().manual_seed(0)
    for name, lengths in DOCUMENTS.items():
        n = sum(lengths)
        inputs = [torch.randn(n, heads, SIZE, generator=generator) for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)]
        ways = {way: make(lengths) for way, make in WAYS.items()}
        results = {way: differentiated(mix, inputs) for way, mix in ways.items()}
        for mine, *others in zip(*results.values(), strict=True):
            for other in others:
                torch.testing.assert_close(other, mine, rtol=1e-4, atol=1e-5)
        medians = timed({way: functools.partial(differentiated, mix, inputs) for way, mix in ways.items()})
        found[name] = {way: {"ms": medians[way], "bytes": peak(mix, inputs)} for way, mix in ways.items()}
        print(name, found[name], flush=True)
    return found


def timed(contestants: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds of each, the median of so many rounds in which they take turns; one before them does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if number:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(taken) for name, taken in times.items()}


def compiled_losses() -> dict[str, Any]:
    """Milliseconds of losses with their gradients, as they are and with what is done to logits compiled."""
    from ptsdk.nn.linear_loss import linear_cross_entropy
    from ptsdk_kd.linear_kd import linear_distillation
    from ptsdk_kd.losses import JSD, ForwardKL

    hidden, weight, labels = drawn()
    teacher = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    fixed = weight.detach()

    def entropy(cap: float | None, head_trains: bool, compiled: bool) -> Tensor:
        head = Head(weight if head_trains else fixed, softcap=cap, compiled=compiled)
        return linear_cross_entropy(hidden, head, labels)

    def divergence(kind: Any, compiled: bool) -> Tensor:
        heads = Head(weight, compiled=compiled), Head(fixed, compiled=compiled)
        return linear_distillation(hidden, heads[0], teacher, heads[1], labels, kind(), 0.5).total

    works: dict[str, Callable[[bool], Tensor]] = {
        "cross-entropy, head trains": functools.partial(entropy, None, True),
        "cross-entropy, head frozen": functools.partial(entropy, None, False),
        "with a softcap, head trains": functools.partial(entropy, 30.0, True),
        "with a softcap, head frozen": functools.partial(entropy, 30.0, False),
        "`kd`, `forward_kl`": functools.partial(divergence, ForwardKL),
        "`kd`, `jsd`": functools.partial(divergence, JSD),
    }

    def backward(work: Callable[[bool], Tensor], compiled: bool) -> None:
        hidden.grad = weight.grad = None
        work(compiled).backward()  # type: ignore[no-untyped-call]

    found = {}
    for name, work in works.items():
        ways = {"as it is": False, "compiled": True}
        found[name] = timed({way: functools.partial(backward, work, compiled) for way, compiled in ways.items()}, 5)
        print(name, found[name], flush=True)
    return found


def optimizers() -> dict[str, Any]:
    """Milliseconds of a step of 18 M weights in 82 tensors, by each implementation."""
    from ptsdk.builtin.optimizers import SGD, AdamW

    shapes = [(2048, 2048)] * 4 + [(1024, 256)] * 4 + [(256,)] * 74
    found = {}
    for name, kind in (("`adamw`", AdamW), ("`sgd`", SGD)):
        steps = {}
        for how in ("fused", "foreach", "loop"):
            weights = {f"w{i}": torch.nn.Parameter(torch.randn(shape)) for i, shape in enumerate(shapes)}
            for parameter in weights.values():
                parameter.grad = torch.randn_like(parameter)
            steps[how] = kind(lr=1e-4, implementation=how).build(weights).step
        found[name] = timed(steps, 10)
        print(name, found[name], flush=True)
    return found


def differentiated(mix: Mix, inputs: list[Tensor]) -> list[Tensor]:
    """What is mixed, and the gradients of queries, keys and values."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs[:3]]
    mixed = mix(*leaves)
    return [mixed.detach(), *torch.autograd.grad(mixed, leaves, inputs[3])]


def peak(mix: Mix, inputs: list[Tensor]) -> int:
    """Bytes of tensors made, at the peak; not those inside a kernel, nor the mask."""
    from ptsdk.plan.meter import Meter

    with Meter() as meter:
        differentiated(mix, inputs)
    return meter.peak


def loss(name: str) -> dict[str, Any]:
    """Bytes at the peak of a loss with the gradients of hidden states and head, what goes in left out, and its sum."""
    from ptsdk.builtin.losses import CrossEntropy
    from ptsdk.plan.meter import Meter
    from tests.benchmarks.plain_loss import Whole

    if name == "liger":
        from ptsdk_liger.loss import LigerCrossEntropy
    losses = {"whole": Whole, "core": CrossEntropy, "liger": LigerCrossEntropy if name == "liger" else None}
    hidden, weight, labels = drawn()
    made = losses[name]
    assert made is not None
    with Meter() as meter:
        output = made()(hidden, Head(weight), labels)
        gradients = torch.autograd.grad(output.sum, [hidden, weight])
    norms = [float(gradient.double().norm()) for gradient in gradients]
    return {"bytes": meter.peak, "numbers": [float(output.sum.detach()), *norms]}


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, a head, and labels."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator).requires_grad_()
    weight = (0.05 * torch.randn(VOCABULARY, WIDTH, generator=generator)).requires_grad_()
    return hidden, weight, torch.randint(0, VOCABULARY, (ROWS,), generator=generator)


def losses() -> dict[str, Any]:
    """Each loss in a process of its own; they have to agree.

    Raises:
        SystemExit: Triton is not there.
    """
    if not TRITON.exists():
        raise SystemExit("make .venv-triton/.installed")
    found: dict[str, dict[str, Any]] = {}
    for name in ("whole", "core", "liger"):
        command = [sys.executable, "-m", "tests.benchmarks.pieces", "--child", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=interpreting())
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, found[name], flush=True)
    expected, *others = (one.pop("numbers") for one in found.values())
    for numbers in others:
        torch.testing.assert_close(numbers, expected, rtol=1e-5, atol=0)
    return found


def interpreting() -> dict[str, str]:
    """The environment of a process in which kernels of Triton run on a CPU."""
    return {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{ROOT}:{TRITON}"}


def main() -> None:
    """Measure, print and perhaps record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(loss(args.child)))
        return
    from tests.benchmarks.ladder import where

    found = {
        "attention": attention(),
        "losses": losses(),
        "compiled": compiled_losses(),
        "optimizers": optimizers(),
    }
    if args.record:
        about = where("python -m tests.benchmarks.pieces --record")
        RESULTS.write_text(json.dumps({**about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
