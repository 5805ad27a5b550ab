"""NaN and infinity: stopped or skipped, with the step, the rows and the module they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ptsdk.errors import RunError, UserError
from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.launch import run_job
from tests.conftest import WriteJob, metrics, ptsdk

POISON = '''
import os
import torch
from ptsdk.contracts.events import Callback

class Spoilt(torch.autograd.Function):
    """What it is given; backwards NaN where that holds the number 7."""
    @staticmethod
    def forward(ctx, x, bad):
        ctx.bad = bad
        return x.clone()
    @staticmethod
    def backward(ctx, g):
        return g * float("nan") if ctx.bad else g, None

class Poison(Callback):
    """Spoils one module on micro-batches with a ``~``, forwards or backwards."""
    module: str
    backwards: bool = False

    def run_start(self, run):
        module = run.model.get_submodule(self.module)
        state = {"bad": False}
        run.model.register_forward_pre_hook(lambda m, args: state.update(bad=bool((args[0].tokens == ord("~")).any())))
        inner = module.forward
        def forward(*args):
            output = inner(*args)
            if self.backwards:
                return Spoilt.apply(output, state["bad"])
            return output * float("nan") if state["bad"] else output
        module.forward = forward
'''


BLOW = """
import torch
from ptsdk.contracts.events import Callback

class Blow(Callback):
    def step(self, run, step, metrics):
        if step == 2:
            with torch.no_grad():
                run.model.get_parameter("model.embed_tokens.weight")[{row}].fill_(float("inf"))
"""


@pytest.fixture
def poisoned(job: dict[str, Any], rows: Path, tmp_path: Path) -> dict[str, Any]:
    """Row 14 of 40 holds a ``~``, the fourth step of two micro-batches meets it."""
    lines = rows.read_text().splitlines()
    lines[13] = json.dumps({"prompt": "x? ", "completion": "~"})
    rows.write_text("\n".join(lines) + "\n")
    (tmp_path / "poison.py").write_text(POISON)
    job["data"]["shuffle"] = False
    job["train"] |= {"steps": 12, "batch_size": 4, "micro_batch_size": 2, "save_every": 2, "keep_last": None}
    return job


def launch(job: dict[str, Any], write_job: WriteJob, resume: bool = False) -> Path:
    registry = Registry(scan())
    return run_job(load_job(write_job(job), (), registry), registry, resume=resume).output_dir


ORIGINS = {
    "model.layers.1.mlp.down_proj": (False, "the output of model.layers.1.mlp.down_proj"),
    "model.layers.0": (False, "the output of model.layers.0"),
    "model.layers.0.self_attn": (True, "the gradient that leaves model.layers.0.self_attn"),
    "model.layers.1.mlp": (True, "the gradient that leaves model.layers.1.mlp"),
}
FEW = {
    ("full", "model.layers.0"),
    ("full", "model.layers.0.self_attn"),
    ("lora", "model.layers.1.mlp.down_proj"),
    ("recomputed", "model.layers.1.mlp"),
}


@pytest.mark.parametrize(
    ("update", "module"),
    [
        pytest.param(update, module, marks=[] if (update, module) in FEW else pytest.mark.slow)
        for update in ("full", "lora", "recomputed")
        for module in ORIGINS
    ],
)
def test_the_step_the_rows_and_the_module_are_named(
    poisoned: dict[str, Any], write_job: WriteJob, rows: Path, update: str, module: str
) -> None:
    backwards, what = ORIGINS[module]
    poisoned["callbacks"] = [{"use": "./poison.py:Poison", "module": module, "backwards": backwards}]
    if update == "lora":
        # Nothing trains before the first block: no gradient enters it, or leaves it.
        what = what.replace("that leaves model.layers.0.self_attn", "that reaches model.layers.0.self_attn.o_proj")
        poisoned["adapter"] = {"use": "lora", "rank": 4, "dropout": 0.1}
    if update == "recomputed":
        poisoned["train"]["activation_checkpointing"] = "full"
    with pytest.raises(RunError) as caught:
        launch(poisoned, write_job)
    message = str(caught.value)
    assert message.startswith("step 4: loss nan" if not backwards else "step 4: loss "), message
    assert f"first in {what}\n    with {rows}:13, {rows}:14\n" in message
    run = Path(poisoned["output_dir"])
    assert [row["step"] for row in metrics(run)] == [1, 2, 3]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-00000002"]


@pytest.mark.parametrize("row", ["0", "ord('?')"])
def test_a_spoiled_weight_is_told_from_a_module_that_spoils(
    poisoned: dict[str, Any], write_job: WriteJob, tmp_path: Path, row: str
) -> None:
    """Also one that no token of the batch reads, and only the projection at the end meets."""
    (tmp_path / "blow.py").write_text(BLOW.format(row=row))
    poisoned["callbacks"] = [{"use": "./blow.py:Blow"}]
    with pytest.raises(
        RunError, match=r"step 3: (.|\n)*first in model\.embed_tokens\.weight: the weight itself is not"
    ):
        launch(poisoned, write_job)


def skipping(job: dict[str, Any], **train: Any) -> dict[str, Any]:
    job["callbacks"] = [{"use": "./poison.py:Poison", "module": "model.norm"}]
    job["train"] |= {"on_nonfinite": "skip", **train}
    return job


def test_a_skipped_step_changes_no_weight_and_is_counted(
    poisoned: dict[str, Any], write_job: WriteJob, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = launch(skipping(poisoned, save_every=1), write_job)
    logged = metrics(run)
    assert [row["skipped_steps"] for row in logged] == [0] * 3 + [1] * 9
    assert [row["step"] for row in logged if row["loss"] is None] == [4]
    for file in ("model.safetensors", "optimizer.safetensors"):
        before, after = (load_file(run / "checkpoints" / f"step-{n:08d}" / file) for n in (3, 4))
        moved = [name for name in before if not before[name].equal(after[name])]
        assert moved == [], file
    assert all(bool(torch.isfinite(w).all()) for w in load_file(run / "final" / "model.safetensors").values())
    assert f"ptsdk: step 4: loss nan, gradient norm nan\n    first in the output of model.norm\n    with {rows}:13" in (
        capsys.readouterr().err
    )


def test_skips_are_bounded(poisoned: dict[str, Any], write_job: WriteJob, rows: Path) -> None:
    rows.write_text(json.dumps({"prompt": "x? ", "completion": "~"}) + "\n" + rows.read_text())
    with pytest.raises(RunError, match=r"step 4: (.|\n)*were skipped before \(1\)"):
        launch(skipping(poisoned, max_skipped=1), write_job)


def test_a_stopped_run_goes_on_by_skipping(poisoned: dict[str, Any], write_job: WriteJob) -> None:
    """The same weights as a run that skipped from the start: the option changes nothing before."""
    whole = launch(skipping({**poisoned, "output_dir": poisoned["output_dir"] + "-whole"}), write_job)
    poisoned["train"] = {**poisoned["train"], "on_nonfinite": "stop"}
    poisoned["callbacks"] = [{"use": "./poison.py:Poison", "module": "model.norm"}]
    with pytest.raises(RunError, match=r"resume with train\.on_nonfinite=skip"):
        launch(poisoned, write_job)
    run = launch(skipping(poisoned), write_job, resume=True)
    ours, theirs = (load_file(folder / "final" / "model.safetensors") for folder in (run, whole))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_no_step_can_be_skipped_that_is_taken_in_the_backward(job: dict[str, Any], write_job: WriteJob) -> None:
    job["train"] |= {"on_nonfinite": "skip", "optimizer_in_backward": True, "clip_grad_norm": None}
    job["train"]["micro_batch_size"] = job["train"]["batch_size"]
    with pytest.raises(UserError, match=r"train\.on_nonfinite: a step cannot be skipped"):
        load_job(write_job(job), (), Registry(scan()))


def test_a_step_taken_in_the_backward_names_its_rows(poisoned: dict[str, Any], write_job: WriteJob, rows: Path) -> None:
    poisoned["callbacks"] = [{"use": "./poison.py:Poison", "module": "model.norm"}]
    poisoned["train"] |= {"micro_batch_size": 4, "optimizer_in_backward": True, "clip_grad_norm": None}
    with pytest.raises(RunError, match=rf"step 4: (.|\n)*does not show\n    with {rows}:13, {rows}:14, {rows}:15, "):
        launch(poisoned, write_job)


def test_a_teacher_that_fails_is_named(poisoned: dict[str, Any], write_job: WriteJob, tmp_path: Path) -> None:
    spoil = "run.frozen['teacher'].get_parameter('model.layers.0.mlp.up_proj.weight')[0].fill_(float('nan'))"
    (tmp_path / "spoil.py").write_text(
        "import torch\nfrom ptsdk.contracts.events import Callback\nclass Spoil(Callback):\n"
        f"    def run_start(self, run):\n        with torch.no_grad():\n            {spoil}\n"
    )
    poisoned["method"] = {"use": "kd", "teacher": poisoned["model"]}
    poisoned["callbacks"] = ["./spoil.py:Spoil"]
    with pytest.raises(
        RunError, match=r"step 1: (.|\n)*first in teacher\.model\.layers\.0\.mlp\.up_proj\.weight: the weight"
    ):
        launch(poisoned, write_job)


OF_LABELS = """
from ptsdk.builtin.losses import CrossEntropy

class OfLabels(CrossEntropy):
    # NaN where the byte ~ is to be learned.
    def __call__(self, hidden_states, head, labels):
        output = super().__call__(hidden_states, head, labels)
        bad = float("nan") if (labels == ord("~")).any() else 1.0
        return type(output)(output.sum * bad, output.weight)
"""


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_the_process_that_met_it_tells_its_rows(
    poisoned: dict[str, Any], write_job: WriteJob, rows: Path, tmp_path: Path, choice: str
) -> None:
    """Row 16 is the second process's in the fourth step of four rows."""
    rows.write_text(rows.read_text().replace("~", "-"))
    lines = rows.read_text().splitlines()
    lines[15] = json.dumps({"prompt": "x? ", "completion": "~"})
    rows.write_text("\n".join(lines) + "\n")
    (tmp_path / "loss.py").write_text(OF_LABELS)
    poisoned |= {"loss": {"use": "./loss.py:OfLabels"}, "strategy": "fsdp2"}
    poisoned["train"] |= {"on_nonfinite": choice}
    done = ptsdk("run", str(write_job(poisoned)), "--nproc", "2")
    assert done.returncode == (choice == "stop"), done.stderr
    assert done.stderr.count("ptsdk: step 4: loss nan, gradient norm nan\n    first in the loss itself\n") == 1
    assert f"    with {rows}:15, {rows}:16\n" in done.stderr
    logged = metrics(Path(poisoned["output_dir"]))
    assert len(logged) == (3 if choice == "stop" else 12)
