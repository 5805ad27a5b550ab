"""Parts of a step by themselves, beside what would stand in their place: attention of documents, and a loss.

    make .venv-triton/.installed && python -m tests.benchmarks.pieces [--record]

Attention is timed on a CPU, in turns. Liger's kernels are for a GPU: Triton's interpreter runs them here one number
after another, which says what they hold in memory and whether they are right, not how fast they are. ``--record``
writes ``pieces.json``, from which docs/speed.md has its tables.
"""

from __future__ import annotations

import argparse
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
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, mix in ways.items():
                started = time.perf_counter()
                differentiated(mix, inputs)
                times[way].append(1e3 * (time.perf_counter() - started))
        medians = {way: statistics.median(taken) for way, taken in times.items()}
        found[name] = {way: {"ms": medians[way], "bytes": peak(mix, inputs)} for way, mix in ways.items()}
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
    from ptsdk.nn.head import Head
    from ptsdk.plan.meter import Meter
    from tests.benchmarks.plain_loss import Whole

    if name == "liger":
        from ptsdk_liger.loss import LigerCrossEntropy
    losses = {"whole": Whole, "core": CrossEntropy, "liger": LigerCrossEntropy if name == "liger" else None}
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator).requires_grad_()
    weight = (0.05 * torch.randn(VOCABULARY, WIDTH, generator=generator)).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    made = losses[name]
    assert made is not None
    with Meter() as meter:
        output = made()(hidden, Head(weight), labels)
        gradients = torch.autograd.grad(output.sum, [hidden, weight])
    norms = [float(gradient.double().norm()) for gradient in gradients]
    return {"bytes": meter.peak, "numbers": [float(output.sum.detach()), *norms]}


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

    found = {"attention": attention(), "losses": losses()}
    if args.record:
        about = where("python -m tests.benchmarks.pieces --record")
        RESULTS.write_text(json.dumps({**about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
