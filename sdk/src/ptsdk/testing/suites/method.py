"""What a training method has to do."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from ptsdk.contracts.run import Run
from ptsdk.nn.batch import IGNORE
from ptsdk.testing.jobs import assembled, job_values, metrics_of, train
from ptsdk.testing.suite import ComponentSuite

VOLATILE = {"tokens_per_second", "step_seconds", "peak_memory_bytes"}
LEAST_GAIN = 0.02


class MethodSuite(ComponentSuite):
    """For the kind ``method``: real jobs of a few steps on a tiny model, with the method's own loss.

    Attributes:
        sections: more of the job, e.g. ``{"loss": {"use": "sigmoid"}}``.
    """

    kind: ClassVar[str] = "method"
    sections: ClassVar[dict[str, Any]] = {}

    def job(self, **sections: Any) -> dict[str, Any]:
        """A job on data of the method's objective."""
        return job_values(self.folder, self.registry, self.written(), **{**self.sections, **sections})

    def run(self, out: str, *, resume: bool = False, **sections: Any) -> Path:
        """Train into a folder of that name."""
        job = self.job(output_dir=str(self.folder / out), **sections)
        return train(job, self.registry, self.base, resume=resume).output_dir

    def assembled(self) -> Run:
        """A live run, prepared as the trainer would find it."""
        run = assembled(self.job(), self.registry, self.base)
        run.job.method.prepare(run)
        return run

    def test_learns(self) -> None:
        """On the same four examples the loss falls; a policy method, whose loss says little, moves the weights."""
        steps = {"steps": 12, "epochs": None}
        out = self.run("run", data={"shuffle": False}, optimizer={"use": "adamw", "lr": 5e-3}, train=steps)
        rows = metrics_of(out)
        assert rows[0]["grad_norm"] > 0, "the first step has no gradient"
        if self.spec.objective != "policy":
            first, last = (sum(row["loss"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
            gain = (first - last) / abs(first)
            assert gain > LEAST_GAIN, f"the loss was {first:.4f}, after 12 steps {last:.4f}"

    def test_accumulation_changes_nothing(self) -> None:
        """Micro-batches of one or of all give the same steps: gradients are divided by the weight of the whole step."""
        rows, weights = [], []
        for micro in (1, 4):
            out = self.run(f"micro-{micro}", train={"micro_batch_size": micro, "steps": 2})
            rows.append(metrics_of(out))
            weights.append(load_file(out / "final" / "model.safetensors"))
        for ones, all_at_once in zip(*rows, strict=True):
            for name in ("loss", "grad_norm"):
                assert math.isclose(ones[name], all_at_once[name], rel_tol=2e-4, abs_tol=1e-6), (
                    f"step {ones['step']}: {name} is {ones[name]:.6g} by ones, {all_at_once[name]:.6g} all at once"
                )
        for name, weight in weights[0].items():
            assert torch.allclose(weight, weights[1][name], rtol=1e-3, atol=1e-5), f"{name} differs"

    @torch.no_grad()
    def test_validation_may_be_cut_anywhere(self) -> None:
        """Sums and weights of validation batches of one add up to those of one of all: none is divided by its own."""
        run = self.assembled()
        run.model.eval()
        method, data = run.job.method, run.train_data
        cuts = [[[0], [1], [2], [3]], [[0, 1, 2, 3]]]
        outputs = [[method.validation_loss(run, method.micro_batch(run, data, part)) for part in cut] for cut in cuts]
        for name in ("sum", "weight"):
            ones, whole = (math.fsum(float(getattr(output, name)) for output in cut) for cut in outputs)
            assert math.isclose(ones, whole, rel_tol=2e-4, abs_tol=1e-6), (
                f"the {name} of validation_loss is {ones:.6g} by ones, {whole:.6g} all at once"
            )

    def test_resumes_to_the_bit(self) -> None:
        """Cut off in the middle and resumed, a run ends with the same rows and weights: what it keeps is in state()."""
        whole = self.run("whole", train={"save_every": 1, "keep_last": None, "steps": 4})
        cut = self.folder / "cut"
        shutil.copytree(whole, cut)
        shutil.rmtree(cut / "final")
        for step in (2, 3, 4):
            shutil.rmtree(cut / "checkpoints" / f"step-{step:08}")
        self.run("cut", resume=True, train={"save_every": 1, "keep_last": None, "steps": 4})
        assert stable(metrics_of(cut)) == stable(metrics_of(whole)), "the rows of a resumed run differ"
        theirs = load_file(whole / "final" / "model.safetensors")
        for name, weight in load_file(cut / "final" / "model.safetensors").items():
            assert weight.equal(theirs[name]), f"{name} differs after a resume"

    def test_only_supervised_tokens_carry_loss(self) -> None:
        """``collate`` keeps the masks of its examples: as many labels as they have supervised tokens."""
        run = self.assembled()
        examples = [run.train_data[i] for i in range(4)]
        batch = run.job.method.collate(run, examples)
        labels, supervised = int((batch.labels != IGNORE).sum()), sum(example.supervised for example in examples)
        assert labels == supervised, f"{labels} positions carry loss, the examples have {supervised} supervised tokens"

    def test_metrics_are_the_same_in_every_micro_batch(self) -> None:
        """The same names each time, each a scalar: sums over micro-batches need all of them."""
        run = self.assembled()
        names: set[frozenset[str]] = set()
        for _, micro_batches in zip(range(2), run.job.method.batches(run), strict=False):
            for batch in micro_batches:
                output = run.job.method.loss(run, batch)
                names.add(frozenset(output.metrics))
                scalars = (m.ndim == 0 if isinstance(m, Tensor) else m.sum.ndim == 0 for m in output.metrics.values())
                assert all(scalars), "a metric is no scalar"
            run.progress.step += 1
        assert len(names) == 1, f"metrics differ between micro-batches: {sorted(map(sorted, names))}"

    def test_a_process_without_data_keeps_step(self) -> None:
        """A micro-batch of no examples is a filler, not live, that goes through the loss all the same."""
        run = self.assembled()
        with torch.no_grad():
            batch = run.job.method.micro_batch(run, run.train_data, [])
            output = run.job.method.validation_loss(run, batch)
        assert not batch.live, "a micro-batch of no examples is live: it would be counted"
        assert output.sum.isfinite(), "the loss of a filler is not finite"


def stable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what no two runs share."""
    return [{key: value for key, value in row.items() if key not in VOLATILE} for row in rows]
