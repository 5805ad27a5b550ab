"""The one loop. It knows of steps, gradients and files, and nothing of any method."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ptsdk.contracts.run import Run
from ptsdk.errors import RunError
from ptsdk.nn.batch import Batch
from ptsdk.train.compiling import Graphs
from ptsdk.train.composite import Composite
from ptsdk.train.events import RunEventBus
from ptsdk.train.in_backward import InBackward
from ptsdk.train.memory import peak_memory_bytes
from ptsdk.train.nonfinite import trace
from ptsdk.train.saving import Saver
from ptsdk.train.signals import StopSignals
from ptsdk.train.tally import Tally, Totals

NONFINITE = "This step was not taken; look at the rows with `ptsdk data`, lower optimizer.lr"


class Trainer:
    """Drives a run to its end: ``Trainer(run, events, saver).fit()``."""

    def __init__(self, run: Run, events: RunEventBus, saver: Saver) -> None:
        self.run, self.events, self.saver = run, events, saver
        self.train = run.job.train
        self.parameters = [p for p in run.model.parameters() if p.requires_grad]
        self.in_backward = (
            InBackward(self.parameters, run.optimizer, run.strategy.grad_norm)
            if self.train.optimizer_in_backward and isinstance(run.optimizer, Composite)
            else None
        )
        self.graphs = Graphs() if self.train.compile else None
        self.last: dict[str, float] = {}

    def fit(self) -> dict[str, float]:
        """Train, validate, save and report until the last step; the last value of each metric.

        Raises:
            RunError: a loss or gradient that is not finite, a step without any weight, or no room on a disk.
            Stopped: a signal came; the step was finished and saved.
        """
        error: BaseException | None = None
        self.events.run_start(self.run)
        self.events.model_ready(self.run)
        try:
            with StopSignals() as signals, self.saver.completing(self.run, self.events):
                self._loop(signals)
        except BaseException as caught:
            error = caught
            raise
        finally:
            self.events.run_end(self.run, error)
        return self.last

    def _loop(self, signals: StopSignals) -> None:
        run, progress = self.run, self.run.progress
        if self._over():
            return  # resumed when everything was done
        if progress.step == 0 and self.train.validate_at_start and run.validation_plan:
            self._validate()
        started = time.perf_counter()
        for micro_batches in run.job.method.batches(run):
            metrics = self.step(micro_batches)
            progress.step += 1
            self._report(metrics, time.perf_counter() - started)
            due = self._over() or _every(self.train.validate_every, progress.step)
            if due and run.validation_plan:
                self._validate()
            wishes = (signals.received, self.events.should_stop(run, progress.step, self.last))
            signal, progress.stopped = _agreed(run.strategy.collect(wishes))
            self.saver.settle(run, self.events)
            last = signal is not None or self._over()
            if last or _every(self.train.save_every, progress.step):
                self.saver.save(run, self.events, last=last, needed=signal is not None)
            signals.raise_if(signal)
            if self._over():
                break
            started = time.perf_counter()

    def _over(self) -> bool:
        """Whether no step is left to take; checkpoints know it too, so that a resume adds none."""
        progress = self.run.progress
        return progress.step >= self.run.total_steps or progress.stopped is not None

    def step(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        """Accumulate gradients of sums, divide once by the weight of the whole step, update."""
        run = self.run
        tally = Tally(run.world.device)
        lr = set_learning_rate(run)
        run.model.train()
        for batch in micro_batches:
            self._backward(batch.to(run.world.device), tally)
        totals = tally.reduce(run.strategy.all_reduce)
        if not totals.weight:
            raise RunError(f"step {run.progress.step + 1}: no token of the batch carries loss")
        means = totals.means()
        if self.in_backward:
            grad_norm = self.in_backward.grad_norm()
        else:
            grad_norm = float(run.strategy.grad_norm(self.parameters)) / totals.weight
        if not (math.isfinite(means["loss"]) and math.isfinite(grad_norm)):
            self._nonfinite(f"loss {means['loss']}, gradient norm {grad_norm}", micro_batches)
        elif not self.in_backward:
            scale_gradients(self.parameters, 1 / totals.weight, grad_norm, self.train.clip_grad_norm)
            run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.progress.tokens_total += totals.tokens
        return {**means, "grad_norm": grad_norm, "lr": lr, **self._counts(totals)}

    def _backward(self, batch: Batch, tally: Tally) -> None:
        """One micro-batch; a filler goes through the model for the others' sake, and counts nothing."""
        output = self.run.job.method.loss(self.run, batch)
        tally.add(output, batch)
        if self.in_backward:
            weight = output.weight.double().reshape(1) * batch.live
            self.in_backward.begin(float(self.run.strategy.all_reduce(weight)))
        (output.sum if batch.live else output.sum * 0).backward()  # type: ignore[no-untyped-call]

    def _nonfinite(self, what: str, micro_batches: Sequence[Batch]) -> None:
        """Stop, or count a step that changes no weight.

        Raises:
            RunError: with the step, the rows and the module where it began.
        """
        run, progress = self.run, self.run.progress
        # Weights that were updated in the backward are spoiled: they show nothing any more.
        origin = trace(run, micro_batches, again=self.in_backward is None)
        story = f"step {progress.step + 1}: {what}\n    {origin}"
        if self.train.on_nonfinite == "stop":
            raise RunError(f"{story}\n    {NONFINITE}, or resume with train.on_nonfinite=skip")
        if progress.skipped >= self.train.max_skipped:
            raise RunError(
                f"{story}\n    as many steps as may be were skipped before ({progress.skipped}). {NONFINITE}"
            )
        progress.skipped += 1
        if run.world.is_main:
            print(f"ptsdk: {story}\n    skipped: the step changes no weight", file=sys.stderr, flush=True)

    def _counts(self, totals: Totals) -> dict[str, float]:
        skipped = {"skipped_steps": self.run.progress.skipped} if self.train.on_nonfinite == "skip" else {}
        return {"tokens": totals.tokens, "supervised_tokens": totals.supervised_tokens, **skipped}

    def _report(self, metrics: dict[str, float], seconds: float) -> None:
        progress = self.run.progress
        row = {
            "step": progress.step,
            "epoch": self.run.train_plan.epochs_done(progress),
            **metrics,
            "tokens_total": progress.tokens_total,
            "tokens_per_second": metrics["tokens"] / seconds,
            "step_seconds": seconds,
            "peak_memory_bytes": peak_memory_bytes(self.run.world.device),
            **self._graphs(),
        }
        self.last.update(row)
        self.events.step(self.run, progress.step, row)

    def _graphs(self) -> dict[str, float]:
        """``compiled_graphs``, where anything is compiled; a line on stderr when there are more than before."""
        if self.graphs is None:
            return {}
        new = self.graphs.count()
        if new and self.run.world.is_main:
            made = f"torch.compile made {new} graph{'s' * (new > 1)}, {self.graphs.made} in all"
            print(f"ptsdk: step {self.run.progress.step}: {made}", file=sys.stderr, flush=True)
        return {"compiled_graphs": self.graphs.made}

    def _validate(self) -> None:
        """One pass over the validation data: token-weighted means, named ``val/...``."""
        means = validate(self.run)
        self.last.update(means)
        row = {"step": self.run.progress.step, "epoch": self.run.train_plan.epochs_done(self.run.progress), **means}
        self.events.validation(self.run, self.run.progress.step, row)


def validate(run: Run) -> dict[str, float]:
    """``{"val/loss": ..., "val/<metric>": ...}`` over all validation data, in the mode of serving."""
    tally = Tally(run.world.device)
    run.model.eval()
    with torch.no_grad():
        for indices in run.validation_plan:
            batch = run.job.method.micro_batch(run, run.validation_data, indices).to(run.world.device)
            tally.add(run.job.method.validation_loss(run, batch), batch)
    run.model.train()
    return {f"val/{name}": value for name, value in tally.reduce(run.strategy.all_reduce).means().items()}


def scale_gradients(
    parameters: Iterable[nn.Parameter], factor: float, grad_norm: float, max_norm: float | None
) -> None:
    """Multiply every gradient by ``factor`` and clip, in one pass.

    Args:
        parameters: what trains.
        factor: one over the weight of the step.
        grad_norm: the 2-norm *after* ``factor``.
        max_norm: gradients longer than this are shortened to it, as ``clip_grad_norm_`` does.
    """
    clip = 1.0 if max_norm is None else min(1.0, max_norm / (grad_norm + 1e-6))
    gradients = [p.grad for p in parameters if p.grad is not None]
    torch._foreach_mul_(gradients, factor * clip)


def set_learning_rate(run: Run) -> float:
    """Scale each group's peak learning rate by the schedule; the first group's is returned."""
    set_rate(run.optimizer, run.job.schedule.factor(run.progress.step, run.total_steps))
    return float(run.optimizer.param_groups[0]["lr"])


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to ``factor`` times its peak; a tensor keeps its place."""
    for group in optimizer.param_groups:
        rate = group.setdefault("initial_lr", float(group["lr"])) * factor
        if isinstance(group["lr"], Tensor):  # a compiled update reads this very tensor
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _agreed(wishes: Sequence[tuple[int | None, str | None]]) -> tuple[int | None, str | None]:
    """The signal that any process got, and what the main one's callbacks want."""
    return next((signal for signal, _ in wishes if signal), None), wishes[0][1]


def _every(interval: int | None, step: int) -> bool:
    return interval is not None and step % interval == 0
