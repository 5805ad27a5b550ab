"""Metrics, the resolved job as parameters and its lock as an artifact, in MLflow."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.contracts.events import Logger
from ptsdk.train.signals import Stopped

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.utils.async_logging.run_operations import RunOperations

    from ptsdk.contracts.run import Run

EXPERIMENT = "ptsdk"
FILE = "mlflow.db"
"""MLflow's own default since 3.7; ``mlflow ui`` in the same folder shows it."""
PARAMS_A_CALL = 100
PENDING = 1000
"""Rows on their way before a step waits for them."""
UNFIT = re.compile(r"[^\w\-./: ]")
"""What MLflow takes in no name."""


class MLflow(Logger):
    """A run of MLflow for a run of ptsdk. A resumed run goes on in the one it had.

    It speaks through a client of its own, so another run that is active in this process is left
    alone. Metrics have their steps; a step that a killed run had logged is not logged twice.
    """

    writes_beside: ClassVar[tuple[str, ...]] = ("mlflow.db", "mlruns")

    experiment: str = Field(EXPERIMENT, description="experiment; made where there is none")
    tracking_uri: str | None = Field(
        None, description=f"store or server; by default what MLflow is set to ($MLFLOW_TRACKING_URI), else ./{FILE}"
    )
    run_name: str | None = Field(None, description="name of the run; by default that of the output directory")

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """Remember the run that is continued."""
        run.scratch[self, "run_id"] = state["run_id"]

    def state(self, run: Run) -> dict[str, Any]:
        """The id of MLflow's run, once it has begun; all before the checkpoint is in the store."""
        if self not in run.scratch:
            return {}
        begun = self._begun(run)
        begun.flush()
        return {"run_id": begun.run_id}

    def run_start(self, run: Run) -> None:
        """Begin MLflow's run, or go on with it, and record what is trained."""
        from mlflow import MlflowClient

        files = RunDir(run.output_dir)
        client = MlflowClient(tracking_uri=self.tracking_uri or store())
        begun = resumed(client, run.scratch.pop((self, "run_id"), None)) or self._new(client, run)
        run.scratch[self] = begun
        job = json.loads(files.lock_file.read_text(encoding="utf-8"))["job"]  # secrets are hidden there
        begun.log_params({parameter_name(key): value for key, value in flat("", job)})
        client.log_artifact(begun.run_id, str(files.lock_file))

    def step(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Log the step's row."""
        begun = self._begun(run)
        if step > begun.trained:
            begun.log_metrics(step, metrics)

    def validation(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Log what validation measured."""
        begun = self._begun(run)
        if step > begun.validated:
            begun.log_metrics(step, {name: value for name, value in metrics.items() if name.startswith("val/")})

    def run_end(self, run: Run, error: BaseException | None) -> None:
        """Mark the run FINISHED, KILLED by a signal after saving, or FAILED."""
        status = "FINISHED" if error is None else "KILLED" if isinstance(error, Stopped) else "FAILED"
        begun = self._begun(run)
        try:
            begun.flush()
        finally:
            begun.client.set_terminated(begun.run_id, status)

    def _new(self, client: MlflowClient, run: Run) -> Begun:
        found = client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else client.create_experiment(self.experiment)
        name = self.run_name or run.output_dir.resolve().name
        tags = {"ptsdk.output_dir": str(run.output_dir.resolve())}
        return Begun(client, client.create_run(experiment, run_name=name, tags=tags).info.run_id)

    def _begun(self, run: Run) -> Begun:
        begun: Begun = run.scratch[self]
        return begun


@dataclass(frozen=True)
class Begun:
    """A run of MLflow that is written to.

    Attributes:
        client: of its store.
        run_id: MLflow's id.
        params: names that have a value already; MLflow never changes one.
        trained, validated: the last step that an earlier process logged a row of.
        pending: rows on their way; a step does not wait for the store.
    """

    client: MlflowClient
    run_id: str
    params: frozenset[str] = frozenset()
    trained: int = -1
    validated: int = -1
    pending: list[RunOperations] = field(default_factory=list)

    def log_params(self, params: Mapping[str, str]) -> None:
        """Those without a value yet, as many in a call as MLflow takes."""
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in params.items() if name not in self.params]
        for start in range(0, len(new), PARAMS_A_CALL):
            self.client.log_batch(self.run_id, params=new[start : start + PARAMS_A_CALL])

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row."""
        from mlflow.entities import Metric

        now = time.time_ns() // 10**6
        row = [Metric(name, value, now, step) for name, value in metrics.items()]
        if sent := self.client.log_batch(self.run_id, row, synchronous=False):
            self.pending.append(sent)
        if len(self.pending) >= PENDING:
            self.flush()

    def flush(self) -> None:
        """Wait until every row is in the store.

        Raises:
            MlflowException: one could not be written.
        """
        while self.pending:
            self.pending.pop(0).wait()  # type: ignore[no-untyped-call]


def resumed(client: MlflowClient, run_id: str | None) -> Begun | None:
    """The run of that id, running again; None where there is none of it."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        data = client.get_run(run_id).data
    except MlflowException as error:
        print(f"ptsdk: mlflow has no run {run_id} to go on with ({error}); a new one begins", file=sys.stderr)
        return None
    client.update_run(run_id, status="RUNNING")
    return Begun(
        client,
        run_id,
        params=frozenset(data.params),
        trained=last_step(client, run_id, "loss"),
        validated=last_step(client, run_id, "val/loss"),
    )


def last_step(client: MlflowClient, run_id: str, metric: str) -> int:
    """The last step that has a value of ``metric``, -1 where none has."""
    return max((entry.step for entry in client.get_metric_history(run_id, metric)), default=-1)


def store() -> str:
    """Where runs go when a job does not say: where MLflow was told to, else a local file. Its whole path:
    MLflow keeps a store open by its URL, whatever the working directory has become."""
    import mlflow

    was_set: bool = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    return mlflow.get_tracking_uri() if was_set else f"sqlite:///{Path(FILE).absolute()}"


def flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """The leaves of a job with their dotted paths, spelled as a job file spells them."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from flat(f"{path}.{key}" if path else str(key), item)
    if not isinstance(value, (Mapping, list)) or not value:
        yield path, value if isinstance(value, str) else json.dumps(value)


def parameter_name(path: str) -> str:
    """``path`` as a name that MLflow takes."""
    return UNFIT.sub("_", path)
