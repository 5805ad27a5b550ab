"""The method on the built-in model: what it minimises, with which teacher, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, kl_div, log_softmax

import ptsdk
from ptsdk.errors import UserError
from ptsdk.job.load import make_job
from ptsdk.nn.batch import Batch
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.assemble import assemble
from ptsdk.train.launch import run_job
from ptsdk_kd.plugin import ptsdk_losses, ptsdk_methods

WORDS = "one row of data and what comes after it".split()  # noqa: SIM905
VOCAB, PADDED = 320, 333
STUDENT = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": VOCAB}
MINE = """
from ptsdk_kd.losses import DistillationLoss

class TotalVariation(DistillationLoss):
    def __call__(self, student, teacher):
        return 0.5 * (student.exp() - teacher.exp()).abs().sum(-1)
"""


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry(scan())


def values(folder: Path, **sections: Any) -> dict[str, Any]:
    """Three steps on 18 rows, without a method; keywords replace sections."""
    rows = [
        {
            "prompt": " ".join(WORDS[(i + j) % 9] for j in range(1 + i % 4)) + "? ",
            "completion": " ".join(WORDS[(i * 2 + j) % 9] for j in range(1 + i % 5)),
        }
        for i in range(18)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"use": "instruct", "path": str(folder / "rows.jsonl")}
    return {
        "api": 1,
        "model": {"use": "tiny", "config": STUDENT, "dtype": "float32"},
        "tokenizer": "bytes",
        "data": {"train": data, "validation": data, "max_length": 64},
        "optimizer": {"use": "adamw", "lr": 1e-2},
        "loggers": ["jsonl"],
        "train": {"steps": 3, "batch_size": 6, "micro_batch_size": 2, "seed": 1},
        "output_dir": str(folder / "run"),
        **sections,
    }


@pytest.fixture(scope="session")
def teachers(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two trained checkpoints of another shape than the student: as many ids as it, and more."""
    folders = {}
    for name, size in (("teacher", VOCAB), ("padded", PADDED)):
        folder = tmp_path_factory.mktemp(name)
        config = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "vocab_size": size}
        job = values(folder, method="sft", model={"use": "tiny", "config": config})
        folders[name] = run_job(make_job(job, registry), registry).final_dir
    return folders


Job = Callable[..., dict[str, Any]]


@pytest.fixture
def job(tmp_path: Path, teachers: dict[str, Path]) -> Job:
    def make(**sections: Any) -> dict[str, Any]:
        options = {"use": "kd", "teacher": {"path": str(teachers["teacher"])}, **sections.pop("kd", {})}
        return values(tmp_path, **{"method": options, **sections})

    return make


Train = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def train(job: Job, registry: Registry) -> Train:
    def make(resume: bool = False, **sections: Any) -> list[dict[str, Any]]:
        made = make_job(job(**sections), registry)
        run_job(made, registry, resume=resume, overwrite=not resume)
        return [json.loads(line) for line in (made.output_dir / "metrics.jsonl").read_text().splitlines()]

    return make


def test_the_specs_name_what_exists() -> None:
    assert [(spec.target, spec.default_loss) for spec in ptsdk_methods()] == [("ptsdk_kd.method:KD", "forward_kl")]
    assert [spec.name for spec in ptsdk_losses()] == ["forward_kl", "reverse_kl", "jsd"]
    assert {spec.methods for spec in ptsdk_losses()} == {("kd",)}


def test_the_plugin_loads_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys, ptsdk_kd.plugin as p; p.ptsdk_methods(), p.ptsdk_losses();"
        "assert not {'torch', 'pydantic', 'safetensors'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("teacher", ["teacher", "padded"])
def test_the_first_loss_by_hand(
    train: Train, job: Job, registry: Registry, teachers: dict[str, Path], teacher: str
) -> None:
    """Every row's logits by both models alone, averaged over the tokens of the completions."""
    options = {"teacher": {"path": str(teachers[teacher])}, "ratio": 0.3}
    sections = {"kd": options, "loss": {"use": "forward_kl", "temperature": 2.0}}
    sections["train"] = {"steps": 1, "batch_size": 18, "micro_batch_size": 6, "seed": 1}
    row = train(**sections)[0]

    run = assemble(make_job(job(**sections), registry), registry)
    theirs = ptsdk.load_model(str(teachers[teacher]))
    ce, kd, count = 0.0, 0.0, 0
    for example in run.train_data:
        (document,) = example.documents
        batch = Batch.pack([document.tokens], [document.supervised])
        keep = batch.labels >= 0
        with torch.no_grad():
            student, other = (model.head().logits(model(batch))[keep].double() for model in (run.model, theirs))
        ce += cross_entropy(student, batch.labels[keep], reduction="sum").item()
        s, t = (log_softmax(logits[:, :VOCAB] / 2, -1) for logits in (student, other))
        kd += kl_div(s, t, log_target=True, reduction="sum").item()
        count += int(keep.sum())
    assert row["ce_loss"] == pytest.approx(ce / count, rel=1e-6)
    assert row["kd_loss"] == pytest.approx(kd / count, rel=1e-5)
    assert row["loss"] == pytest.approx(0.7 * ce / count + 0.3 * kd / count, rel=1e-6)
    assert row["supervised_tokens"] == count


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "jsd"])
def test_the_student_comes_nearer(train: Train, loss: str) -> None:
    rows = train(kd={"ratio": 1.0}, loss=loss, train={"steps": 25, "batch_size": 6, "micro_batch_size": 6, "seed": 1})
    steps = [row for row in rows if "loss" in row]
    assert steps[-1]["kd_loss"] < 0.7 * steps[0]["kd_loss"]
    assert all(row["loss"] == pytest.approx(row["kd_loss"]) for row in steps)
    assert rows[-1]["val/kd_loss"] < 0.7 * steps[0]["kd_loss"] and "val/ce_loss" in rows[-1]


def test_ratio_0_is_sft(train: Train) -> None:
    with_teacher, without = train(kd={"ratio": 0.0}), train(method="sft")
    for ours, theirs in zip(with_teacher, without, strict=True):
        for name in theirs.keys() & {"loss", "grad_norm", "val/loss"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)


def test_accumulation_and_packing_change_nothing(train: Train) -> None:
    runs = [train(train={"steps": 3, "batch_size": 6, "micro_batch_size": size, "seed": 1}) for size in (1, 6)]
    for one, six in zip(*runs, strict=True):
        for name in one.keys() & {"loss", "grad_norm", "ce_loss", "kd_loss", "val/loss", "val/kd_loss"}:
            assert one[name] == pytest.approx(six[name], rel=1e-5)


def test_the_teacher_is_as_it_was(train: Train, job: Job, registry: Registry, teachers: dict[str, Path]) -> None:
    before = {path: path.read_bytes() for path in teachers["teacher"].iterdir()}
    run = assemble(make_job(job(), registry), registry)
    teacher = run.frozen["teacher"]
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    output = run.job.method.loss(run, run.job.method.collate(run, [run.train_data[0]]))
    output.sum.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in run.model.parameters())
    train()
    assert {path: path.read_bytes() for path in teachers["teacher"].iterdir()} == before


def test_ptsdk_run_from_a_file(job: Job, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(loss={"use": "./mine.py:TotalVariation", "temperature": 2})))
    command = [sys.executable, "-m", "ptsdk", "run", str(tmp_path / "job.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < rows[0]["kd_loss"] < 1


def test_what_a_job_may_not_say(job: Job, registry: Registry) -> None:
    def paths(**sections: Any) -> list[str]:
        with pytest.raises(UserError) as caught:
            make_job(job(**sections), registry)
        return [problem.path for problem in caught.value.problems]

    assert paths(kd={"ratio": 1.5}) == ["method.ratio"]
    assert paths(kd={"teacher": {"path": "nowhere"}}) == ["method.teacher.path"]
    assert paths(method="kd") == ["method.teacher"]
    assert set(paths(loss={"use": "jsd", "beta": 2, "temperature": 0})) == {"loss.beta", "loss.temperature"}
    assert paths(loss="cross_entropy") == ["loss"]
    assert paths(loss="forward_kl", method="sft") == ["loss"]


def test_another_loss_of_the_objective_is_refused_by_name(job: Job, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="method KD calls a DistillationLoss, which the loss CrossEntropy is not"):
        make_job(job(loss="cross_entropy"), registry)
    (tmp_path / "mine.py").write_text(MINE)
    local = {"method": "sft", "loss": "./mine.py:TotalVariation"}
    with pytest.raises(UserError, match="method SFT calls a TokenLoss, which the loss TotalVariation is not"):
        make_job(job(**local), registry, tmp_path)


def refusal(job: dict[str, Any], registry: Registry) -> str:
    with pytest.raises(UserError) as caught:
        run_job(make_job(job, registry), registry)
    assert not Path(job["output_dir"]).exists()
    assert [problem.path for problem in caught.value.problems] == ["method.teacher"]
    return str(caught.value)


def test_a_teacher_that_reads_other_tokens_is_refused(
    job: Job, registry: Registry, teachers: dict[str, Path], tmp_path: Path
) -> None:
    other = shutil.copytree(teachers["teacher"], tmp_path / "other")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (other / file).write_text((other / file).read_text().replace("<pad>", "<tool>"))
    message = refusal(job(kd={"teacher": {"path": str(other)}}), registry)
    assert "id 258 is '<pad>' in this run, and '<tool>' to the teacher" in message


def test_vocabularies_of_two_sizes_need_the_teachers_tokenizer(
    job: Job, registry: Registry, teachers: dict[str, Path], tmp_path: Path
) -> None:
    for name, refused in (("padded", True), ("teacher", False)):
        bare = shutil.copytree(teachers[name], tmp_path / name, ignore=shutil.ignore_patterns("tokenizer*"))
        values = job(kd={"teacher": {"path": str(bare)}})
        if refused:
            assert f"the teacher has {PADDED} token ids, the model {VOCAB}" in refusal(values, registry)
        else:
            run_job(make_job(values, registry), registry)


def test_a_teacher_may_know_more_tokens_than_the_run(
    job: Job, registry: Registry, teachers: dict[str, Path], tmp_path: Path
) -> None:
    """Every id that the run can produce is the same to both, whichever of them has more rows of ids."""
    wider = shutil.copytree(teachers["padded"], tmp_path / "wider")
    add_tokens(wider / "tokenizer.json", ["<tool>", "<call>"])
    for vocab in (VOCAB, PADDED + 7):
        model = {"use": "tiny", "config": STUDENT | {"vocab_size": vocab}, "dtype": "float32"}
        sections = {"model": model, "train": {"steps": 1, "batch_size": 2, "micro_batch_size": 2, "seed": 1}}
        first = []
        for teacher in (teachers["padded"], wider):
            made = make_job(job(kd={"teacher": {"path": str(teacher)}}, **sections), registry)
            run_job(made, registry, overwrite=True)
            rows = (made.output_dir / "metrics.jsonl").read_text().splitlines()
            first.append(json.loads(rows[0])["kd_loss"])
        assert first[0] == first[1] > 0


def add_tokens(file: Path, tokens: list[str]) -> None:
    """Special tokens behind the 259 of the bytes."""
    written = json.loads(file.read_text())
    last = written["added_tokens"][-1]
    written["added_tokens"] += [last | {"id": 259 + i, "content": token} for i, token in enumerate(tokens)]
    file.write_text(json.dumps(written))


def test_a_teacher_of_fewer_ids_than_tokens_is_refused(
    job: Job, registry: Registry, teachers: dict[str, Path], tmp_path: Path
) -> None:
    short = shutil.copytree(teachers["teacher"], tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"vocab_size": 200}))
    message = refusal(job(kd={"teacher": {"path": str(short)}}), registry)
    assert "the teacher has 200 token ids, the tokenizer 259" in message


def test_the_lock_knows_the_teacher(train: Train, teachers: dict[str, Path], tmp_path: Path) -> None:
    teacher = shutil.copytree(teachers["teacher"], tmp_path / "teacher")
    kd = {"teacher": {"path": str(teacher)}}
    longer = {"steps": 6, "batch_size": 6, "micro_batch_size": 2, "seed": 1}
    train(kd=kd)
    lock = json.loads((tmp_path / "run" / "lock.json").read_text())
    assert lock["job"]["method"]["teacher"]["path"] == str(teacher)
    assert len(lock["frozen"]["teacher"]) == 64 and "ptsdk-kd" in lock["dists"]
    tensors = load_file(teacher / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, teacher / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"frozen\.teacher: "):
        train(resume=True, kd=kd, train=longer)
