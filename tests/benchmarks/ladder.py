"""The ladder of docs/memory.md, measured: one technique added a row.

    python -m tests.benchmarks.ladder [--only TEXT] [--record]

A Llama of 8 blocks and a vocabulary of 128k trains on packs of tokens, each rung in processes of its own:
one counts the bytes of tensors that are alive (``ptsdk.plan.meter``), another, without the meter, takes
the time and the memory that the system saw. Time is that of one core, as the system counts it for the
process: another that works beside it changes it little. ``--record`` writes what was measured into ``ladder.json``,
from which the page is made.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "ladder.json"
SHAPE = {
    "vocab_size": 128_256, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True,
}  # fmt: skip
STEPS = 3
"""The first makes the optimizer's state, and compiles what there is to compile: it is not timed."""

WHOLE = ("loss=./plain_loss.py:Whole",)
EVERY_OTHER = ("train.activation_checkpointing=full", "train.activation_checkpointing_every=2")
FULL = ("train.activation_checkpointing=full",)
IN_BACKWARD = ("train.optimizer_in_backward=true", "train.clip_grad_norm=null")
SMALL = ("optimizer.use=adamw-8bit",)
LORA = ("adapter={use: lora, rank: 8, alpha: 16}",)
UPPER = "adapter={use: lora, rank: 8, alpha: 16, targets: '.*layers[.][67][.].*_proj'}"
UNEVEN = ("data.train.path=uneven.jsonl", "data.packing=false", "train.batch_size=32", "train.micro_batch_size=8")
PAIRS = ("data.train={use: preference, path: pairs.jsonl}", "data.packing=false")
RUNGS: dict[str, tuple[str, ...]] = {
    "packed, all logits at once": WHOLE,
    "chunked loss": (),
    "+ selective checkpointing": ("train.activation_checkpointing=selective",),
    "+ full, of every 2nd block": EVERY_OTHER,
    "+ full, of every block": FULL,
    "+ optimizer in the backward": (*FULL, *IN_BACKWARD),
    "+ 8-bit AdamW": (*FULL, *IN_BACKWARD, *SMALL),
    "LoRA instead of the last two": (*FULL, *LORA),
    "QLoRA: the same on an nf4 base": (*FULL, *LORA, "quantizer=nf4"),
    "beside it: 4-bit AdamW": (*FULL, *IN_BACKWARD, "optimizer.use=adamw-4bit"),
    "beside it: LoRA in the last two blocks": (*FULL, UPPER),
    "beside it: LoRA, inputs of blocks offloaded": (*FULL, *LORA, "train.activation_offloading=true"),
    "beside it: the blocks compiled": ("train.compile=true",),
    "uneven texts, 8 x 4": UNEVEN,
    "uneven texts, by 1024 tokens": (*UNEVEN, "train.micro_batch_size=null", "train.micro_batch_tokens=1024"),
    "DPO, a copy as reference": (*PAIRS, "method={use: dpo, reference: copy}"),
    "DPO, its log-probs made before": (*PAIRS, "method={use: dpo, reference: precompute}"),
}


def write_job(folder: Path) -> Path:
    """Four packs of 512 tokens a step, every token supervised; beside them texts of uneven lengths, and pairs."""
    import yaml

    shutil.copy(HERE / "plain_loss.py", folder)
    text = "some words, as many as fill a document that is not long; " * 3
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"text": f"{i} {text[i % 40 :]}"}) + "\n" for i in range(200))
    )
    lengths = [16 * 2 ** (i * 7 % 6) for i in range(200)]  # 16 to 512, in no order
    (folder / "uneven.jsonl").write_text("".join(json.dumps({"text": "w" * length}) + "\n" for length in lengths))
    pairs = [{"prompt": text, "chosen": f" {i} yes {text}", "rejected": f" {i} no {text}"} for i in range(40)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    job = {
        "api": 1,
        "model": {"use": "llama", "config": SHAPE, "dtype": "float32"},
        "tokenizer": "bytes",
        "data": {"train": {"use": "text", "path": "rows.jsonl"}, "max_length": 512, "packing": True},
        "method": "sft",
        "optimizer": {"use": "adamw", "lr": 1e-4},
        "loggers": [],
        "train": {"steps": STEPS, "batch_size": 4, "micro_batch_size": 4},
        "output_dir": str(folder / "run"),
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def planned_and_alive(path: Path, overrides: tuple[str, ...]) -> dict[str, float]:
    """Bytes alive at the peak, as planned and in a real run."""
    from ptsdk.job import load_job
    from ptsdk.plan.estimate import Planner
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry
    from tests.plan.jobs import measured

    registry = Registry(scan())
    plan = Planner(path, overrides, registry).plan()
    alive, _ = measured(load_job(path, [*overrides, "train.steps=2"], registry), registry)
    return {"planned": plan.total, "alive": alive}


def resident_and_rate(path: Path, overrides: tuple[str, ...]) -> dict[str, float]:
    """The most memory the system saw, tokens through the model a second of one core (the median step), and the loss."""
    import torch

    from ptsdk.checkpoint.run_dir import RunDir
    from ptsdk.job import load_job
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry
    from ptsdk.train.assemble import assemble
    from ptsdk.train.events import RunEventBus
    from ptsdk.train.memory import peak_memory_bytes
    from ptsdk.train.saving import Saver
    from ptsdk.train.trainer import Trainer

    registry = Registry(scan())
    torch.set_num_threads(1)
    job = load_job(path, overrides, registry)
    run = assemble(job, registry)
    job.output_dir.mkdir(parents=True, exist_ok=True)
    job.method.prepare(run)
    trainer = Trainer(run, RunEventBus([]), Saver(RunDir(job.output_dir), job.train, run.world.device))
    rates, loss = [], 0.0
    for micro_batches in job.method.batches(run):
        started = time.process_time()
        metrics = trainer.step(micro_batches)
        rates.append(metrics["tokens"] / (time.process_time() - started))
        loss = metrics["loss"]
        run.progress.step += 1
        if run.progress.step == STEPS:
            break
    resident = peak_memory_bytes(run.world.device)
    return {"tokens_per_second": statistics.median(rates[1:]), "resident": resident, "loss": loss}


def measure(name: str) -> dict[str, float]:
    """Everything of one rung, each part in a process of its own."""
    found: dict[str, float] = {}
    parts = []
    if "train.compile=true" not in RUNGS[name]:  # what compiled code makes, no meter sees
        parts.append(planned_and_alive)
    if "train.activation_offloading=true" not in RUNGS[name]:  # to be timed it takes an accelerator
        parts.append(resident_and_rate)
    for part in parts:
        command = [sys.executable, "-m", "tests.benchmarks.ladder", "--child", part.__name__, name]
        found |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    """Measure, print and perhaps record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rungs whose name contains one of these, divided by |")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        part, name = args.child
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(globals()[part](write_job(Path(folder)), RUNGS[name])))
        return
    measured = {}
    for name in RUNGS:
        if any(word in name for word in args.only.split("|")):
            measured[name] = measure(name)
            print(name, measured[name], flush=True)
            if args.record:
                record(measured)


def record(measured: dict[str, Any]) -> None:
    """Into the file, beside the rungs that are there already."""
    before = json.loads(RESULTS.read_text())["rungs"] if RESULTS.exists() else {}
    about = where("python -m tests.benchmarks.ladder --record")
    about["machine"] += ", one core"
    day = about.pop("date")
    today = {name: {**rung, "date": day} for name, rung in measured.items()}
    rungs = {name: today.get(name) or before[name] for name in RUNGS if name in today or name in before}
    RESULTS.write_text(json.dumps({**about, "rungs": rungs}, indent=1) + "\n")


def where(command: str) -> dict[str, Any]:
    """When, by what, with what and on what was measured."""
    import torch

    from ptsdk.checkpoint.environment import processor

    return {
        "date": date.today().isoformat(),
        "command": command,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "machine": processor(),
    }


if __name__ == "__main__":
    main()
