"""Metrics and the resolved job in Weights & Biases."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.contracts.events import Logger
from ptsdk.train.signals import Stopped

if TYPE_CHECKING:
    import wandb

    from ptsdk.contracts.run import Run

PROJECT = "ptsdk"
STEP = "step"


class Wandb(Logger):
    """A run of Weights & Biases for a run of ptsdk; its files lie in ``<output_dir>/wandb``.

    A resumed run goes on under the id it had. Rows are plotted over ``step``, not over wandb's own
    count of calls, so that what a killed run had logged beyond its checkpoint may be logged again.
    """

    project: str | None = Field(None, description="project; by default $WANDB_PROJECT, else ptsdk")
    entity: str | None = Field(None, description="user or team; by default the account's own")
    name: str | None = Field(None, description="name of the run; by default that of the output directory")
    group: str | None = Field(None, description="group of runs this one belongs to")
    tags: tuple[str, ...] = Field((), description="tags of the run")
    notes: str | None = Field(None, description="a longer description of the run")
    mode: Literal["online", "offline", "disabled"] | None = Field(
        None,
        description="offline writes files that `wandb sync` uploads later; by default $WANDB_MODE, else online",
        examples=["offline"],
    )

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """Remember the id of the run that is continued."""
        run.scratch[self, "id"] = state["id"]

    def state(self, run: Run) -> dict[str, Any]:
        """The id of wandb's run, once it has begun."""
        return {"id": run.scratch[self].id} if self in run.scratch else {}

    def run_start(self, run: Run) -> None:
        """Begin wandb's run, or go on with it; others that are active in this process are left alone."""
        import wandb

        lock = json.loads(RunDir(run.output_dir).lock_file.read_text(encoding="utf-8"))
        known: str | None = run.scratch.pop((self, "id"), None)
        begun = wandb.init(
            project=self.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=self.entity,
            name=self.name or run.output_dir.resolve().name,
            group=self.group,
            tags=self.tags,
            notes=self.notes,
            mode=self.mode,
            id=known,
            resume="allow" if known else None,
            reinit="create_new",
            dir=run.output_dir.resolve(),
            config=lock["job"],  # secrets are hidden there
            allow_val_change=True,
            settings=wandb.Settings(x_disable_meta=True, disable_git=True),  # the command line may hold secrets
        )
        run.scratch[self] = begun
        begun.define_metric(STEP, hidden=True)
        begun.define_metric("*", step_metric=STEP)

    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Log the step's row."""
        self._begun(run).log(dict(metrics))

    def validation(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Log a row of its own."""
        self._begun(run).log(dict(metrics))

    def run_end(self, run: Run, error: BaseException | None) -> None:
        """Upload what is left: the run is finished, preempted by a signal, or failed."""
        begun = self._begun(run)
        if isinstance(error, Stopped):
            begun.mark_preempting()
        begun.finish(exit_code=0 if error is None else 1)

    def _begun(self, run: Run) -> wandb.Run:
        begun: wandb.Run = run.scratch[self]
        return begun
