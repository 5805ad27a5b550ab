"""``ptsdk run JOB [overrides]``: train."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ptsdk.cli.options import job_options

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext


@click.command()
@click.argument("job", type=click.Path(path_type=Path), required=False)
@click.argument("overrides", nargs=-1)
@click.option("--resume", is_flag=True, help="Continue from the newest intact checkpoint.")
@click.option("--overwrite", is_flag=True, help="Discard what an earlier run left in output_dir.")
@click.option(
    "--locked",
    type=click.Path(path_type=Path),
    metavar="LOCK",
    help="Refuse whatever would not repeat the run of this lock.json to the bit; its job is the default JOB.",
)
@click.option("--nproc", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
@job_options
@click.pass_context
def run(
    ctx: click.Context,
    job: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    locked: Path | None,
    nproc: int,
    as_json: bool,
) -> None:
    """Train what the file JOB says. OVERRIDES change it: optimizer.lr=1e-5 ~callbacks."""
    context: CliContext = ctx.obj
    if nproc > 1 and "WORLD_SIZE" not in os.environ:
        ctx.exit(start_processes(context, nproc))

    from ptsdk.checkpoint.reproduction import read_lock
    from ptsdk.cli.output import print_json
    from ptsdk.cli.processes import rank
    from ptsdk.train.launch import run_job

    if locked and job and not job.exists() and (str(job).startswith("~") or "=" in str(job)):
        job, overrides = None, (str(job), *overrides)  # the job is the lock's, this an override of it
    source = job or locked
    if source is None:
        raise click.UsageError("Missing argument 'JOB'.")
    loaded = context.load_job(source, overrides, locked=job is None)
    lock = read_lock(locked) if locked else None
    with loaded.placing():
        result = run_job(loaded, context.registry, resume=resume, overwrite=overwrite, locked=lock)
    if rank() > 0:
        return
    if as_json:
        print_json(
            {
                "output_dir": str(result.output_dir),
                "final_dir": str(result.final_dir),
                "steps": result.steps,
                "metrics": result.metrics,
            }
        )
    else:
        why = f" ({result.stopped})" if result.stopped else ""
        click.echo(f"done: {result.steps} steps{why}, {result.final_dir}", err=True)


def start_processes(context: CliContext, nproc: int) -> int:
    """The same command in each of ``nproc`` processes; the exit code of all."""
    from ptsdk.cli.processes import run_together

    command = [sys.executable, "-m", "ptsdk", *context.arguments]
    return run_together(command, nproc, context.plugins.options.environment())
