"""`ptsdk eval` against the harness's own ``hf`` model, on tasks from local files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptsdk.cli.main import main
from tests.conftest import WORDS
from tests.parity.trl import save_checkpoint

TASKS = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "num_fewshot": 1,
        "fewshot_split": "test",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "wordy": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": ["e", "\n"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_checkpoint(tmp_path_factory.mktemp("model"))
    config = json.loads((folder / "config.json").read_text())
    # Short, so that texts are cut and read in windows.
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 48}))
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import yaml

    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "rows.jsonl"
    with rows.open("w") as file:
        for i in range(12):
            words = [WORDS[(3 * i + j) % len(WORDS)] for j in range(4 + 5 * (i % 4))]
            row = {
                "question": " ".join(words) + "?",
                "choices": [" " + WORDS[i], " of it and", f" {i}"],
                "answer": i % 3,
            }
            file.write(json.dumps({**row, "text": " ".join(words * 4), "target": WORDS[i]}) + "\n")
    for name, task in TASKS.items():
        source = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**source, "test_split": "test", **task}))
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, float]]:
    assert main(["eval", *arguments, "--json"]) == 0
    results: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out)["results"]
    return results


def of_the_harness(checkpoint: Path, tasks: Path) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model: Any = HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=1)
    manager = TaskManager(include_path=str(tasks))
    found: Any = simple_evaluate(
        model, tasks=list(TASKS), task_manager=manager, random_seed=0, numpy_random_seed=0, torch_random_seed=0,
        fewshot_random_seed=0,
    )  # fmt: skip
    return dict(found["results"])


def test_numbers_are_those_of_the_harness(checkpoint: Path, tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = evaluated(capsys, str(checkpoint), "--tasks", ",".join(TASKS), "--include-path", str(tasks))
    theirs = of_the_harness(checkpoint, tasks)
    assert set(ours) == set(TASKS)
    for task, values in ours.items():
        for name, value in values.items():
            key = name if "," in name else f"{name},none"
            assert value == pytest.approx(theirs[task][key], rel=1e-5), (task, name)
    assert {"acc", "acc_norm"} <= set(ours["choice"])
    assert 0 < ours["choice"]["acc"] < 1


def test_answers_are_those_of_the_harness(checkpoint: Path, tasks: Path) -> None:
    """Each by itself: a mean may hide two that differ."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from ptsdk.generate.loading import load_pretrained
    from ptsdk.generate.stopping import stop_ids
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry
    from ptsdk_lm_eval.model import PtsdkLM

    loaded = load_pretrained(str(checkpoint), Registry(scan()), Path())
    assert loaded.tokenizer is not None
    ours: Any = PtsdkLM(loaded.model, loaded.tokenizer, stop_ids(loaded.checkpoint, loaded.tokenizer), "tiny", 64, 3)
    theirs: Any = HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=1)
    contexts = [" ".join(WORDS[i : i + n]) for i, n in enumerate((1, 4, 9, 2, 14))] + [""]
    pairs = [Instance("loglikelihood", {}, (context, f" {WORDS[i]} it"), i) for i, context in enumerate(contexts)]
    for a, b in zip(ours.loglikelihood(pairs), theirs.loglikelihood(pairs), strict=True):
        assert a[0] == pytest.approx(b[0], rel=1e-5)
        assert a[1] == b[1]
    options = ({"until": ["e"], "max_gen_toks": 9}, {"until": "it", "max_gen_toks": 20})
    wishes = [Instance("generate_until", {}, (c, dict(options[i % 2])), i) for i, c in enumerate(contexts[:-1])]
    assert ours.generate_until(wishes) == theirs.generate_until(wishes)


def test_an_unknown_task_is_refused_before_the_model_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "nowhere", "--tasks", "no_such_task"]) == 2
    assert "no such task: no_such_task" in capsys.readouterr().err


def test_a_way_of_generating_that_is_not_understood_is_refused(
    checkpoint: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = (tasks / "written.yaml").read_text().replace("do_sample: false", "do_sample: false\n  num_beams: 4")
    (tmp_path / "beams.yaml").write_text(task.replace("task: written", "task: beams"))
    assert main(["eval", str(checkpoint), "--tasks", "beams", "--include-path", str(tmp_path)]) == 2
    assert "num_beams" in capsys.readouterr().err
