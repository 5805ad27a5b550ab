"""One run from start to end: assemble, claim the directory, train, export."""

from __future__ import annotations

from ptsdk.checkpoint.export import export_model
from ptsdk.checkpoint.files import write_json
from ptsdk.checkpoint.lock import lock_differences, make_lock
from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.checkpoint.state import load_checkpoint
from ptsdk.contracts.run import Run
from ptsdk.errors import UserError
from ptsdk.job.job import Job
from ptsdk.registry import Registry
from ptsdk.train.assemble import assemble
from ptsdk.train.events import RunEventBus
from ptsdk.train.result import RunResult
from ptsdk.train.saving import Saver, restore
from ptsdk.train.trainer import Trainer
from ptsdk.train.weights import adapter_names


def run_job(job: Job, registry: Registry, *, resume: bool = False, overwrite: bool = False) -> RunResult:
    """Train what ``job`` says and export the result. Nothing is written before the job is sound.

    Args:
        resume: continue from the newest intact checkpoint.
        overwrite: discard what an earlier run left in the output directory.

    Raises:
        UserError: the job, its data or the output directory do not allow it.
        RunError: training failed.
        Stopped: a signal ended it, after saving.
    """
    run_dir = RunDir(job.output_dir)
    run_dir.check(resume=resume, overwrite=overwrite)
    run = assemble(job, registry)
    ...
