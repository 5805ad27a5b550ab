"""``ptsdk check``: every fault of a job, or the job in full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.options import job_options
from ptsdk.cli.output import print_json
from ptsdk.errors import UserError
from ptsdk.redaction import redact

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, of a faulty job too.")
@job_options
@click.pass_context
def check(ctx: click.Context, job: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Find every fault of the file JOB, with OVERRIDES (key.path=value, ~key.path) applied, without
    running it or writing anything. Exit code 2 when there is one."""
    context: CliContext = ctx.obj
    try:
        resolved = resolve(context, job, overrides)
    except UserError as error:
        if not as_json:
            raise
        print_json(
            {"ok": False, "errors": [redact(as_dict(p), context.secrets) for p in error.problems], "resolved": {}}
        )
        ctx.exit(error.exit_code)
    if as_json:
        print_json({"ok": True, "errors": [], "resolved": resolved})
    else:
        _print(job, resolved)


def resolve(context: CliContext, path: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The job of a file in full, secrets hidden.

    Raises:
        UserError: every fault.
    """
    job = context.load_job(path, overrides)
    hidden: dict[str, Any] = redact(job.resolved(), context.secrets)
    return hidden


def as_dict(problem: Any) -> dict[str, Any]:
    """A problem as ``{file, line, path, message, hint}``."""
    return {name: getattr(problem, name) for name in ("file", "line", "path", "message", "hint")}


def _print(path: Path, resolved: dict[str, Any]) -> None:
    import yaml

    click.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), nl=False)
    click.echo(f"{path}: no fault found; above is the job with every default", err=True)
