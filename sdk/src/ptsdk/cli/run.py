"""``ptsdk run JOB [overrides]``: train."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--resume", is_flag=True, help="Continue from the newest intact checkpoint.")
@click.option("--overwrite", is_flag=True, help="Discard what an earlier run left in output_dir.")
@click.option("--nproc", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
@click.pass_obj
def run(
    context: CliContext,
    job: Path,
    overrides: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    nproc: int,
    as_json: bool,
) -> None:
    """Train what the file JOB says. OVERRIDES change it: optimizer.lr=1e-5 ~callbacks."""
    if nproc > 1 and "WORLD_SIZE" not in os.environ:
        click.get_current_context().exit(start_processes(context, nproc))

    from ptsdk.cli.output import print_json
    from ptsdk.cli.processes import rank
    from ptsdk.job import load_job
    from ptsdk.train.launch import run_job

    loaded = load_job(job, overrides, context.registry)
    result = run_job(loaded, context.registry, resume=resume, overwrite=overwrite)
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
