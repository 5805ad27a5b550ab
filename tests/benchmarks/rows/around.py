"""What is around training: packing, tokenisation, starting, loading, saving."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks import inputs
from tests.benchmarks.inputs import write_rows
from tests.benchmarks.row import OURS, Contestant, Hold, Metrics, Row, medians, mine, over_best
from tests.benchmarks.training import write_job

CHATS = 20_000


def nothing(folder: Path) -> None:
    """The contestants bring what they work on."""


def tokenize(folder: Path) -> None:
    """Questions and answers in two turns, no two alike, and a model that costs nothing to load."""
    model = inputs.chat_model()
    questions = inputs.questions()

    def chat(i: int) -> dict[str, object]:
        (question, answer), (more, last) = (questions[j % len(questions)] for j in (i, i * 7 + 1))
        turns = [("user", f"{i}. {question}"), ("assistant", answer), ("user", more), ("assistant", last)]
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    write_rows(folder / "chats.jsonl", (chat(i) for i in range(CHATS)))
    data = {"train": {"use": "chat", "path": "chats.jsonl"}, "max_length": 512}
    write_job(folder, model, data, {"steps": 1, "batch_size": 1}, lr=1e-3)
    (folder / "row.json").write_text(json.dumps({"model": str(model), "rows": CHATS}), encoding="utf-8")


def load(folder: Path) -> None:
    (folder / "row.json").write_text(json.dumps({"model": str(inputs.gemma())}), encoding="utf-8")


def save(folder: Path) -> None:
    """All of Gemma 3 270M; SGD has no state, so that a checkpoint is its gigabyte."""
    data = {"train": {"use": "text", "path": str(inputs.text())}, "max_length": 128}
    train = {"steps": 3, "batch_size": 1, "save_every": 1, "keep_last": None, "async_save": True}
    write_job(folder, inputs.gemma(), data, train, lr=1e-4, optimizer={"use": "sgd", "lr": 1e-4})


def second_start(measured: Mapping[str, Metrics]) -> float:
    return measured[OURS]["first_start_seconds"] / measured[OURS]["second_start_seconds"]


def blocked(measured: Mapping[str, Metrics]) -> float:
    return measured[OURS]["blocked_seconds"] / measured[OURS]["save_seconds"]


BEFORE = (
    "what is around the read does not grow with it, timed part by part on a quiet machine: 16 to 19 ms the discovery "
    "of the plugins, 12 to 18 the modules of the model, 5 to 7 a parameter for each tensor, 3 to 5 the header"
)
PYTHON = (
    "six tenths of a worker's time are in the tokenizer, by py-spy, the rest in the template, the mask and its checks; "
    "before that, two seconds of the eight, the vocabulary is parsed here, and once more for the workers"
)

ROWS = (
    Row(
        "pack",
        "Lengths of a million rows into packs of 4096 tokens; TRL packs 100,000 rows and torchtune 10,000, with their "
        "tokens",
        {
            OURS: Contestant("pack", arguments=("ptsdk",)),
            "trl": Contestant("pack", ".venv-peers", ("trl",)),
            "torchtune": Contestant("pack", ".venv-torchtune", ("torchtune",)),
        },
        (
            Hold("99.9 % efficiency or more", mine("efficiency"), 0.999),
            Hold("2 M rows a second or more", mine("rows_per_second"), 2e6),
            Hold(
                "constant memory when streamed: 1.05x the peak or less with four times the rows",
                mine("streamed_growth"),
                1.05,
                at_least=False,
            ),
        ),
        nothing,
        medians,
        checks=(Contestant("streamed"),),
    ),
    Row(
        "tokenize",
        f"{CHATS:,} chats of two turns to tokens and masks, a vocabulary of 131,072; a second start finds the caches "
        "of the first",
        {
            OURS: Contestant("tokenize_rows", arguments=("ptsdk",)),
            "trl": Contestant("tokenize_rows", ".venv-peers", ("trl",)),
        },
        (
            Hold("2x TRL's map or more", over_best("rows_per_second"), 2, why=PYTHON),
            Hold("the second start 20x as fast as the first or more", second_start, 20),
        ),
        tokenize,
        medians,
        checks=(Contestant("encode_alone"),),
        profile=Contestant("profile_python", arguments=("tokenize",)),
        absent={"torchtune": "it tokenises a row whenever it is read"},
    ),
    Row(
        "start",
        "Commands with 20 plugins beside those of the workspace, seconds beyond a bare interpreter",
        {
            OURS: Contestant("starts", arguments=("ptsdk",)),
            "trl": Contestant("starts", ".venv-peers", ("trl",)),
            "torchtune": Contestant("starts", ".venv-torchtune", ("torchtune",)),
        },
        (
            Hold("`ptsdk --help` adds 0.3 s or less", mine("added_by_help_seconds"), 0.3, at_least=False),
            Hold("`ptsdk plugins` adds 0.3 s or less", mine("added_by_plugins_seconds"), 0.3, at_least=False),
            Hold("torch is not loaded", mine("loads_torch"), 0, at_least=False),
        ),
        nothing,
        medians,
    ),
    Row(
        "load",
        "A gigabyte of safetensors, Gemma 3 270M in float32, read to its last byte from the page cache",
        {
            OURS: Contestant("load", arguments=("ptsdk",)),
            "mapped": Contestant("load", arguments=("mapped",)),
            "transformers": Contestant("load", ".venv-peers", ("transformers",)),
        },
        (Hold("1.2x a memory-mapped read or less", over_best("load_seconds", min), 1.2, at_least=False, why=BEFORE),),
        load,
        medians,
        absent={"torchtune": "torchtune 0.6.1 has no Gemma 3"},
        profile=Contestant("profile_python", arguments=("load",)),
    ),
    Row(
        "save",
        "A checkpoint of a gigabyte in the middle of a run of Gemma 3 270M",
        {OURS: Contestant("saves")},
        (Hold("training waits for 10 % of the time a checkpoint takes or less", blocked, 0.1, at_least=False),),
        save,
        medians,
    ),
)
