"""The method on the built-in model: what it minimises, beside what, and what it keeps."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ptsdk.contracts.loss import Completions
from ptsdk.contracts.run import Run
from ptsdk.contracts.strategy import World
from ptsdk.errors import UserError
from ptsdk.job.load import make_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.assemble import assemble
from ptsdk.train.launch import run_job
from ptsdk_dpo import precomputed
from ptsdk_dpo.losses import IPO, Hinge, Sigmoid, SimPO
from ptsdk_dpo.method import DPO
from ptsdk_dpo.scoring import score, supervised_tokens

WORDS = "one row of data and what comes after it".split()  # noqa: SIM905
METRICS = {f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")} | {
    "logps/chosen",
    "logps/rejected",
}
Job = Callable[..., dict[str, Any]]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Three steps on 12 pairs, validated on 5 others; keywords replace sections."""
    for name, numbers in (("pairs", range(12)), ("others", range(12, 17))):
        rows = []
        for i in numbers:
            answers = [" ".join(WORDS[(i * step + j) % 9] for j in range(1 + i % 4)) for step in (1, 2)]
            rows.append({"prompt": WORDS[i % 9] + "? ", "chosen": answers[0] + " yes", "rejected": answers[1]})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**sections: Any) -> dict[str, Any]:
        return {
            "api": 1,
            "model": {"use": "tiny", "config": {"hidden_size": 16, "intermediate_size": 32}, "dtype": "float32"},
            "tokenizer": "bytes",
            "data": {
                "train": {"use": "preference", "path": str(tmp_path / "pairs.jsonl")},
                "validation": {"use": "preference", "path": str(tmp_path / "others.jsonl")},
                "max_length": 64,
            },
            "method": "dpo",
            "optimizer": {"use": "adamw", "lr": 1e-2},
            "loggers": ["jsonl"],
            "train": {"steps": 3, "batch_size": 6, "micro_batch_size": 2, "seed": 1},
            "output_dir": str(tmp_path / "run"),
            **sections,
        }

    return make


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(scan())


Assemble = Callable[..., Run]


@pytest.fixture
def assembled(job: Job, registry: Registry) -> Assemble:
    def make(**sections: Any) -> Run:
        return assemble(make_job(job(**sections), registry), registry)

    return make


Train = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def train(job: Job, registry: Registry, tmp_path: Path) -> Train:
    def make(resume: bool = False, overwrite: bool = True, **sections: Any) -> list[dict[str, Any]]:
        values = make_job(job(**sections), registry)
        run_job(values, registry, resume=resume, overwrite=overwrite and not resume)
        return [json.loads(line) for line in (values.output_dir / "metrics.jsonl").read_text().splitlines()]

    return make


def test_the_plugin_loads_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys, ptsdk_dpo.plugin as p; p.ptsdk_methods(), p.ptsdk_losses();"
        "assert not {'torch', 'pydantic', 'safetensors'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scores_are_those_of_documents_alone(assembled: Assemble) -> None:
    run = assembled()
    model = run.model.double()
    batch = run.job.method.micro_batch(run, run.train_data, [3, 0, 7])
    expected, counts = [], []
    for index in (3, 0, 7):
        for document in run.train_data[index].documents:
            alone = batch.pack([document.tokens])
            log_probs = torch.log_softmax(model.head().logits(model(alone)), -1)[:-1]
            of_next = log_probs.gather(1, alone.tokens[1:, None]).squeeze(1)
            mask = torch.tensor(document.supervised[1:])
            expected.append(of_next[mask].sum())
            counts.append(int(mask.sum()))
    torch.testing.assert_close(score(model, batch), torch.stack(expected), rtol=1e-12, atol=0)
    assert supervised_tokens(batch).tolist() == counts


def test_the_gradient_is_that_of_the_plain_formula(assembled: Assemble) -> None:
    run = assembled(loss={"use": "sigmoid", "beta": 0.7})
    run.model.double()
    run.frozen["reference"].double()
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    batch = run.job.method.micro_batch(run, run.train_data, [1, 5])
    output = run.job.method.loss(run, batch)
    ours = torch.autograd.grad(output.sum, list(run.model.parameters()))

    def plain(model: Any) -> Tensor:
        sums = []
        for index in (1, 5):
            for document in run.train_data[index].documents:
                alone = batch.pack([document.tokens])
                log_probs = torch.log_softmax(model.head().logits(model(alone)), -1)[:-1]
                of_next = log_probs.gather(1, alone.tokens[1:, None]).squeeze(1)
                sums.append((of_next * torch.tensor(document.supervised[1:])).sum())
        return torch.stack(sums).view(2, 2)

    difference = plain(run.model) - plain(run.frozen["reference"])
    loss = torch.log1p(torch.exp(-0.7 * (difference[:, 0] - difference[:, 1]))).sum()
    theirs = torch.autograd.grad(loss, list(run.model.parameters()))
    assert float(output.weight) == 2
    torch.testing.assert_close(output.sum, loss, rtol=1e-10, atol=0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("micro", [1, 6])
def test_first_step_is_ln_2_and_pairs_are_the_weight(train: Train, micro: int) -> None:
    rows = train(train={"steps": 3, "batch_size": 6, "micro_batch_size": micro, "seed": 1, "validate_at_start": True})
    start, first, *_, end = rows
    assert start["val/loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert first.keys() >= METRICS and {f"val/{name}" for name in METRICS} <= end.keys()
    assert end["val/loss"] < start["val/loss"] and end["val/rewards/accuracies"] > 0.5
    assert end["val/rewards/margins"] == pytest.approx(end["val/rewards/chosen"] - end["val/rewards/rejected"])
    assert end["val/rewards/margins"] > 0
    assert first["rewards/accuracies"] == 0  # both are their own reference: no margin


def test_micro_batches_do_not_matter(train: Train) -> None:
    sections = {"steps": 3, "batch_size": 6, "seed": 1}
    one, six = (train(train={**sections, "micro_batch_size": micro}) for micro in (1, 6))
    for a, b in zip(one, six, strict=True):
        for name in {"loss", "grad_norm", *METRICS} & a.keys():
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-5), name


def test_the_reference_is_a_copy_that_stays(assembled: Assemble) -> None:
    run = assembled()
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    run.model.train()
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(1)
    with run.reference() as model:
        assert model is not run.model and not model.training and not torch.is_grad_enabled()
        for name, parameter in model.named_parameters():
            assert parameter.equal(before[name]) and not parameter.requires_grad
    assert torch.is_grad_enabled() and run.model.training


ROUNDED = """
from torch import nn
from ptsdk.contracts.quantizer import Quantizer

class RoundedLinear(nn.Linear):
    def forward(self, x):
        rounding = self.weight.detach().mul(32).round().div(32) - self.weight.detach()
        return nn.functional.linear(x, self.weight + rounding, self.bias)

class Rounded(Quantizer):
    def prepare(self, model):
        for module in list(model.modules()):
            if type(module) is nn.Linear:
                module.__class__ = RoundedLinear
"""


def test_a_copy_is_quantised_as_the_policy_is(train: Train, tmp_path: Path) -> None:
    (tmp_path / "rounded.py").write_text(ROUNDED)
    rounded = {"use": str(tmp_path / "rounded.py:Rounded")}
    runs = [train(quantizer=rounded, method={"use": "dpo", "reference": name}) for name in ("copy", "precompute")]
    assert [rows[0]["loss"] for rows in runs] == pytest.approx([math.log(2)] * 2, rel=1e-6)
    assert runs[0][1]["loss"] == pytest.approx(runs[1][1]["loss"], rel=1e-4)
    assert runs[0][0]["logps/chosen"] != pytest.approx(train()[0]["logps/chosen"], rel=1e-6)


def test_simpo_has_no_reference(assembled: Assemble, train: Train) -> None:
    assert not assembled(loss="simpo").frozen
    assert train(loss="simpo")[0]["rewards/margins"] != 0
    for reference in ("copy", "precompute"):
        with pytest.raises(UserError, match=r"method\.reference: method dpo with loss simpo: .*does not use one"):
            assembled(loss="simpo", method={"use": "dpo", "reference": reference})


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_precomputed_is_a_copy(train: Train, tmp_path: Path, loss: str) -> None:
    copy = train(loss=loss)
    known = train(loss=loss, method={"use": "dpo", "reference": "precompute"})
    assert (tmp_path / "run/reference/log_probs.safetensors").exists()
    for a, b in zip(copy, known, strict=True):
        for name in {"loss", "grad_norm", "val/loss", *METRICS} & a.keys():
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-5), name


PRECOMPUTE = {"use": "dpo", "reference": "precompute"}


def test_precomputed_pairs_are_found_in_any_order(assembled: Assemble) -> None:
    copy, known = assembled(), assembled(method=PRECOMPUTE)
    known.job.method.prepare(known)
    assert not known.frozen
    for data in ("train_data", "validation_data"):
        for indices in ([4, 1], [2], []):
            a = copy.job.method.micro_batch(copy, getattr(copy, data), indices)
            b = known.job.method.micro_batch(known, getattr(known, data), indices)
            assert a.live == b.live == bool(indices)
            with copy.reference() as model:
                torch.testing.assert_close(b.extras["reference"], score(model, a), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("change", ["none", "weights", "data", "damage"])
def test_precomputed_is_used_again_only_where_it_fits(
    assembled: Assemble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    run = assembled(method=PRECOMPUTE)
    before = precomputed.precompute(run)
    path = run.output_dir / "reference/log_probs.safetensors"
    if change == "weights":
        run = assembled(method=PRECOMPUTE, train={"steps": 3, "batch_size": 6, "micro_batch_size": 2, "seed": 2})
    if change == "data":
        data = run.job.data.train[0].path
        Path(data).write_text(Path(data).read_text().replace("yes", "yea"))
        run = assembled(method=PRECOMPUTE)
    if change == "damage":
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
    capsys.readouterr()
    passes: list[int] = []
    monkeypatch.setattr(precomputed, "score", lambda model, batch: passes.append(1) or score(model, batch))
    after = precomputed.precompute(run)
    told = capsys.readouterr().err
    if change == "none":
        assert not passes and not told
    else:
        assert passes and "computed anew" in told
    assert all(before[name].equal(after[name]) for name in before) == (change in ("none", "damage"))
    fresh = precomputed.read(run.output_dir / "reference", precomputed.fingerprint(run, datasets(run)))
    assert fresh is not None and all(fresh[name].equal(after[name]) for name in after)


def datasets(run: Run) -> dict[str, Any]:
    return {"train": run.train_data, "validation": run.validation_data}


def test_precomputing_changes_nothing_else(assembled: Assemble) -> None:
    run = assembled(method=PRECOMPUTE)
    run.model.train()
    state = torch.get_rng_state()
    run.job.method.prepare(run)
    assert run.model.training and torch.get_rng_state().equal(state)
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_processes_share_the_pairs(assembled: Assemble) -> None:
    run = assembled(train={"steps": 3, "batch_size": 6, "micro_batch_size": 1, "seed": 1})
    data = run.validation_data  # 5 pairs: one process has a filler
    whole = precomputed.log_probs(run, run.model, data)
    parts = []
    for rank in (0, 1):
        run.world = World(rank, 2, run.world.device)
        parts.append(precomputed.log_probs(run, run.model, data))
    assert whole.shape == (5, 2) and whole.equal(torch.cat(parts))


def test_a_resumed_run_has_the_reference_it_started_with(train: Train, tmp_path: Path) -> None:
    sections = {"method": PRECOMPUTE, "train": {"steps": 4, "batch_size": 6, "micro_batch_size": 2, "save_every": 2}}
    whole = train(**sections)
    run = tmp_path / "run"
    for folder in (run / "reference", run / "checkpoints/step-00000004"):  # the reference is lost with them
        subprocess.run(["rm", "-r", str(folder)], check=True)
    resumed = train(resume=True, **sections)
    assert [row["loss"] for row in resumed if "loss" in row] == [row["loss"] for row in whole if "loss" in row]


def pair(h: float, reference: bool = True) -> tuple[Completions, Completions]:
    """Completions of 2 and 4 tokens; the log-ratios are h/2 and -h/2."""
    at = torch.tensor([-6.0, -8.0], dtype=torch.float64)
    lengths = torch.tensor([2, 4])
    logs = at + torch.tensor([h / 2, -h / 2], dtype=torch.float64)
    sides = (Completions(logs[i, None], at[i, None] if reference else None, lengths[i, None]) for i in (0, 1))
    return next(sides), next(sides)


@pytest.mark.parametrize("h", [-3.0, 0.0, 0.4, 50.0])
def test_losses_by_hand(h: float) -> None:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    smoothed = -0.9 * math.log(sigmoid(0.2 * h)) - 0.1 * math.log(sigmoid(-0.2 * h))
    average = -(6 - h / 2) / 2 - -(8 + h / 2) / 4
    expected = {
        Sigmoid(beta=0.2): -math.log(sigmoid(0.2 * h)),
        Sigmoid(beta=0.2, label_smoothing=0.1): smoothed,
        Hinge(beta=0.2): max(0, 1 - 0.2 * h),
        IPO(beta=0.2): (h / 4 + h / 8 - 2.5) ** 2,
        SimPO(beta=2, gamma_margin=0.5): -math.log(sigmoid(2 * average - 0.5)),
    }
    for loss, value in expected.items():
        completions = pair(h, reference=not loss.reference_free)
        assert float(loss(*completions)) == pytest.approx(value, rel=1e-9, abs=1e-12), loss
    assert [float(Sigmoid(beta=0.2).rewards(side)) for side in pair(h)] == pytest.approx([0.1 * h, -0.1 * h])
    assert [float(SimPO(beta=2).rewards(side)) for side in pair(h)] == pytest.approx([-(6 - h / 2), -(8 + h / 2) / 2])


def test_defaults_are_those_of_the_papers() -> None:
    assert [loss().beta for loss in (Sigmoid, Hinge, IPO, SimPO)] == [0.1, 0.1, 0.1, 2.0]
    assert DPO().reference == "auto" and Sigmoid().label_smoothing == 0 and SimPO().gamma_margin == 0.5


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (Sigmoid, {"beta": 0}),
        (Sigmoid, {"label_smoothing": 0.5}),
        (Hinge, {"label_smoothing": 0.1}),
        (IPO, {"label_smoothing": 0.1}),
        (SimPO, {"gamma_margin": -1}),
    ],
)
def test_options_that_mean_nothing_are_refused(loss: type, options: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        loss(**options)


def test_other_data_is_refused_by_name(assembled: Assemble, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dpo learns from pairs"):
        assembled(data={"train": {"use": "instruct", "path": str(tmp_path / "pairs.jsonl")}})
    with pytest.raises(UserError, match="sigmoid is for methods of the objective preference"):
        assembled(method="sft", loss="sigmoid", data={"train": {"use": "text", "path": str(tmp_path / "pairs.jsonl")}})
