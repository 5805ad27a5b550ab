"""The matrix: every family x method x update x strategy, and what is asked of each cell.

    python -m tests.matrix.cells [--only TEXT] [--jobs N] [--record]

runs cells and prints a line each; ``--record`` writes ``tests/matrix/results.json``, from which
``docs/generate.py`` makes ``docs/matrix.md``. ``test_cells.py`` runs a pairwise slice.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tests.matrix.refused import REFUSED, refusal

RESULTS = Path(__file__).with_name("results.json")
VOLATILE = {"tokens_per_second", "step_seconds", "peak_memory_bytes"}
SHAPE = {
    "vocab_size": 264, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SHAPE, "tie_word_embeddings": False},
    "gemma3": {"model_type": "gemma3_text", **SHAPE, "sliding_window": 16},
    "qwen3": {"model_type": "qwen3", **SHAPE, "tie_word_embeddings": True},
}
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
UPDATES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"adapter": {"use": "lora", **LORA}},
    "dora": {"adapter": {"use": "dora", **LORA}},
    "lora+nf4": {"adapter": {"use": "lora", **LORA}, "quantizer": "nf4"},
    "full+qat": {"quantizer": "qat"},
    "lora+qat": {"adapter": {"use": "lora", **LORA}, "quantizer": "qat"},
}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft", "data": {"train": {"use": "instruct", "path": "instruct.jsonl"}}},
    "dpo": {"method": "dpo", "data": {"train": {"use": "preference", "path": "preference.jsonl"}}},
    "kd": {
        "method": {"use": "kd", "teacher": {"path": "teacher"}, "ratio": 0.5},
        "data": {"train": {"use": "instruct", "path": "instruct.jsonl"}},
    },
    "grpo": {
        "method": {
            "use": "grpo", "group_size": 4, "max_new_tokens": 6, "epochs": 3,
            "rewards": [{"use": "./parts.py:Variety"}],
        },
        "data": {"train": {"use": "prompts", "path": "instruct.jsonl"}},
    },
}  # fmt: skip
STRATEGIES: dict[str, dict[str, Any]] = {"single": {}, "fsdp2": {"strategy": "fsdp2"}}
PARTS = '''
"""A reward, and a callback that dies once."""

import os
import signal
from pathlib import Path

from ptsdk.contracts.events import Callback


class Variety:
    def score(self, completions, rows):
        return [sum(map(ord, text)) % 17 / 17 for text in completions]


class Die(Callback):
    at: int
    flag: str

    def step(self, run, step, metrics):
        if step == self.at and not (flag := Path(self.flag.format(run=run.output_dir))).exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
'''


@dataclass(frozen=True)
class Cell:
    """One combination."""

    family: str
    method: str
    update: str
    strategy: str

    def __str__(self) -> str:
        return f"{self.family}-{self.method}-{self.update}-{self.strategy}"

    def job(self, folder: Path) -> dict[str, Any]:
        """Five steps, a checkpoint at the second and fourth (in the middle of a rollout), death at the third."""
        sections = {**METHODS[self.method], **UPDATES[self.update], **STRATEGIES[self.strategy]}
        return {
            "api": 1,
            "model": {"path": "model"},
            "tokenizer": "bytes",
            **sections,
            "data": {**sections["data"], "max_length": 64},
            "optimizer": {"use": "adamw", "lr": 1e-3},
            "callbacks": [{"use": "./parts.py:Die", "at": 3, "flag": "{run}/../died"}],
            "loggers": ["jsonl"],
            "train": {"steps": 5, "batch_size": 4, "micro_batch_size": 2, "save_every": 2, "seed": 1},
            "output_dir": str(folder / "run"),
        }


ALL = [Cell(*values) for values in itertools.product(FAMILIES, METHODS, UPDATES, STRATEGIES)]


def pairwise() -> list[Cell]:
    """A small set in which every two values of different axes meet, chosen greedily."""

    def pairs(cell: Cell) -> set[tuple[str, str]]:
        return set(itertools.combinations((cell.family, cell.method, cell.update, cell.strategy), 2))

    left = set().union(*map(pairs, ALL))
    chosen = []
    while left:
        best = max(ALL, key=lambda cell: len(pairs(cell) & left))
        chosen.append(best)
        left -= pairs(best)
    return chosen


def prepare(folder: Path, family: str) -> None:
    """Data, two small random checkpoints written by transformers, and the local parts."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(FAMILIES[family])
    for seed, name in enumerate(("model", "teacher")):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
        model.save_pretrained(folder / name)
    words = "one row of data and what comes after it".split()  # noqa: SIM905
    instruct, preference = [], []
    for i in range(24):
        prompt = " ".join(words[(i + j) % len(words)] for j in range(1 + i % 4)) + "? "
        good, bad = words[i % len(words)], " ".join(words[(2 * i + j) % len(words)] for j in range(1 + i % 3))
        instruct.append({"prompt": prompt, "completion": good + " " + bad})
        preference.append({"prompt": prompt, "chosen": good + " yes", "rejected": bad})
    for name, rows in (("instruct", instruct), ("preference", preference)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "parts.py").write_text(PARTS)


def ptsdk(folder: Path, cell: Cell, out: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """``ptsdk run`` on the cell's job, in as many processes as its strategy is for."""
    job = cell.job(folder / out)
    path = folder / f"{out}.yaml"
    path.write_text(yaml.safe_dump(job))
    several = ["--nproc", "2"] if cell.strategy == "fsdp2" else []
    command = [sys.executable, "-m", "ptsdk", "run", str(path), *flags, *several]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def check(cell: Cell, folder: Path) -> None:
    """Train; die and resume to the same bits; export; load the export elsewhere to the same logits."""
    prepare(folder, cell.family)
    (folder / "whole").mkdir()
    (folder / "whole" / "died").touch()
    whole = ptsdk(folder, cell, "whole")
    assert whole.returncode == 0, whole.stderr
    killed = ptsdk(folder, cell, "killed")
    assert killed.returncode != 0 and (folder / "killed" / "died").exists(), killed.stderr
    resumed = ptsdk(folder, cell, "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    same_bits(folder / "whole" / "run", folder / "killed" / "run")
    same_logits(cell, folder)


def same_bits(whole: Path, killed: Path) -> None:
    """Metrics and exported weights of two runs."""
    from safetensors.torch import load_file

    rows = [
        [{k: v for k, v in json.loads(line).items() if k not in VOLATILE} for line in text.splitlines()]
        for text in ((run / "metrics.jsonl").read_text() for run in (whole, killed))
    ]
    assert rows[0] == rows[1], f"metrics differ: {rows}"
    assert all(row["grad_norm"] > 0 for row in rows[0]), "a step without a gradient shows nothing"
    for file in (whole / "final").glob("*.safetensors"):
        ours, theirs = load_file(killed / "final" / file.name), load_file(file)
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in theirs), f"{file.name} differs"


def same_logits(cell: Cell, folder: Path) -> None:
    """``final/`` in transformers, or in PEFT on its base, against our own loading of it."""
    import torch
    from transformers import AutoModelForCausalLM

    import ptsdk as sdk

    final, base = folder / "whole" / "run" / "final", folder / "model"
    ids = torch.tensor([list(b"what comes after one row of data")])
    if (final / "adapter_config.json").exists():
        from peft import PeftModel

        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), final)
        ours = sdk.load_model(str(base), adapter=str(final))
    else:
        theirs, ours = AutoModelForCausalLM.from_pretrained(final), sdk.load_model(str(final))
    with torch.no_grad():
        torch.testing.assert_close(sdk.logits(ours, ids), theirs.eval()(ids).logits, rtol=1e-4, atol=1e-4)


def outcome(cell: Cell) -> dict[str, Any]:
    """``passed`` or what failed, and the seconds it took."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(cell, Path(folder))
            said = "passed"
        except (AssertionError, subprocess.TimeoutExpired) as error:
            said = f"failed: {str(error).strip().splitlines()[-1][:200]}"
    return {"outcome": said, "seconds": round(time.perf_counter() - started, 1)}


def main() -> int:
    """Run cells, print and perhaps record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--record", action="store_true", help="write results.json")
    args = parser.parse_args()
    cells = [cell for cell in ALL if args.only in str(cell)]
    results = {}
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        for cell, result in zip(cells, pool.map(outcome, cells), strict=True):
            results[str(cell)] = result
            print(f"{cell}: {result['outcome']} ({result['seconds']} s)", flush=True)
    if args.record:
        record(results)
    return int(any(result["outcome"] != "passed" for result in results.values()))


def record(results: dict[str, Any]) -> None:
    """Write the file that the page is made from."""
    versions = {name: version(name) for name in ("ptsdk", "torch", "torchao", "transformers", "peft")}
    page = {
        "date": datetime.date.today().isoformat(),
        "command": "python -m tests.matrix.cells --record --jobs 2",
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, no GPU",
        "versions": versions,
        "cells": results,
        "refused": {name: " ".join(refusal(job)) for name, job in REFUSED.items()},
    }
    RESULTS.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
