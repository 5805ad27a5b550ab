"""Chats to masked tokens: ``tokenize_rows.py FOLDER {ptsdk|trl}``, a first start and a second one after it.

Each start is a process of its own, on what the one before left in the caches; the clock runs from the job (or the
data set's file) to data that is ready to train on, without imports and the model.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from tests.benchmarks.contestants.report import FOLDER, row, told


def ptsdk() -> float:
    import torch._dynamo  # noqa: F401 - an import that torch leaves for when the first optimizer is made

    from ptsdk.job import load_job
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry
    from ptsdk.train.assemble import assemble

    registry = Registry(scan())
    start = time.perf_counter()
    assemble(load_job(FOLDER / "job.yaml", (), registry), registry)
    return time.perf_counter() - start


def trl() -> float:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(row()["model"])
    config = SFTConfig(
        str(FOLDER / "trl"),
        assistant_only_loss=True,
        dataset_num_proc=os.cpu_count(),
        max_length=512,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    start = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(row()["model"])
    dataset = load_dataset("json", data_files=str(FOLDER / "chats.jsonl"), split="train")
    SFTTrainer(model, config, train_dataset=dataset, processing_class=tokenizer)
    return time.perf_counter() - start


def start_of(name: str) -> float:
    """Seconds of one start, in a process of its own."""
    caches = {key: str(FOLDER / "caches") for key in ("XDG_CACHE_HOME", "HF_HOME")}
    command = [sys.executable, "-m", __spec__.name, str(FOLDER), name, "once"]
    done = subprocess.run(command, env={**os.environ, **caches}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    name = sys.argv[2]
    if "once" in sys.argv:
        print({"ptsdk": ptsdk, "trl": trl}[name]())
        return
    shutil.rmtree(FOLDER / "caches", ignore_errors=True)
    first, second = start_of(name), start_of(name)
    told(rows_per_second=row()["rows"] / first, first_start_seconds=first, second_start_seconds=second)


if __name__ == "__main__":
    main()
