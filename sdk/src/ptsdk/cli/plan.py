"""``ptsdk plan``: the memory a job needs, before it runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.check import as_dict
from ptsdk.cli.options import job_options
from ptsdk.cli.output import print_json, table
from ptsdk.errors import UserError
from ptsdk.redaction import redact

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext
    from ptsdk.plan.estimate import Plan
    from ptsdk.plan.fit import Fit
    from ptsdk.plan.ladder import Rung


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--nproc", type=click.IntRange(1), default=1, show_default=True, help="Processes the run is spread over.")
@click.option(
    "--length",
    type=click.IntRange(2),
    help="Tokens of every document, or pack. By default those of the data where it is small and local, else "
    "data.max_length.",
)
@click.option("--fit", "size", metavar="SIZE", help="Find the cheapest change of the job that needs at most 24GB.")
@click.option("--ladder/--no-ladder", "climb", default=True, help="Plan each technique that the job could use too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, of a faulty job too.")
@job_options
@click.pass_context
def plan(
    ctx: click.Context,
    job: Path,
    overrides: tuple[str, ...],
    nproc: int,
    length: int | None,
    size: str | None,
    climb: bool,
    as_json: bool,
) -> None:
    """Tell what one process of the file JOB, with OVERRIDES applied, holds at the peak of a step, and what each
    technique would save. The step is gone through on tensors without data: no weight is read.

    Exit code 1 where nothing makes it fit into --fit."""
    context: CliContext = ctx.obj
    try:
        asked = Asked(job, overrides, nproc, length, size, climb)
        document, ok = answer(asked, context, (lambda text: None) if as_json else click.echo)
    except UserError as error:
        if not as_json:
            raise
        errors = [redact(as_dict(problem), context.secrets) for problem in error.problems]
        print_json({"ok": False, "errors": errors, "resolved": {}})
        ctx.exit(error.exit_code)
    if as_json:
        print_json(document)
    if not ok:
        ctx.exit(1)


@dataclass(frozen=True)
class Asked:
    """The command line."""

    job: Path
    overrides: tuple[str, ...]
    nproc: int
    length: int | None
    size: str | None
    climb: bool


def answer(asked: Asked, context: CliContext, tell: Callable[[str], None]) -> tuple[dict[str, Any], bool]:
    """The JSON document, and whether the job fits where that was asked; each part is told as it is found.

    Raises:
        UserError: the job, or the size, is wrong.
    """
    from ptsdk.plan.estimate import Planner
    from ptsdk.plan.fit import fit, parse_size
    from ptsdk.plan.ladder import ladder

    limit = None if asked.size is None else parse_size(asked.size)
    planner = Planner(asked.job, asked.overrides, context.registry, processes=asked.nproc, length=asked.length)
    context.secrets.update(planner.job.secrets)
    base = planner.plan()
    document, ok = base.as_dict(), True
    tell(plan_text(base))
    if asked.climb:
        rungs = ladder(planner)
        document["ladder"] = [rung.as_dict(base) for rung in rungs]
        tell(ladder_text(base, rungs))
    if limit is not None:
        found = fit(planner, limit)
        document["fit"], ok = found.as_dict(), found.ok
        tell(fit_text(found))
    return document, ok


def plan_text(plan: Plan) -> str:
    """What one process holds, and what was assumed."""
    trace = plan.trace
    who = f"each of {plan.processes} processes" if plan.processes > 1 else "the process"
    source = "the largest of the data" if plan.from_data else "assumed; --length sets another"
    lines = [
        f"{trace.parameters:,} parameters, {trace.trainable:,} of them train\n",
        table([(name, shown(size)) for name, size in plan.bytes().items()], indent=2),
        f"\nbytes of tensors that {who} holds at the peak of a step, with a micro-batch of",
        f"{trace.documents} documents and {trace.tokens:,} tokens ({source})",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in plan.notes)])


def ladder_text(base: Plan, rungs: list[Rung]) -> str:
    """What each technique would save."""
    rows = [("", "total", "saves", "how"), *(_rung(base, rung) for rung in rungs)]
    return f"\nwhat would change it, each by itself:\n\n{table(rows, indent=2)}"


def _rung(base: Plan, rung: Rung) -> tuple[str, str, str, str]:
    technique = rung.technique
    processes = [f"--nproc {technique.processes}"] if technique.processes else []
    how = " ".join([*processes, shlex.join(technique.overrides)]).strip()
    if rung.plan:
        return technique.name, shown(rung.plan.total), shown(base.total - rung.plan.total), how
    return technique.name, "", "", f"pip install {technique.install}" if technique.install else rung.refused


def fit_text(found: Fit) -> str:
    """The change that fits, or the least that was reached."""
    names = " + ".join(technique.name for technique in found.choice) or "the job as it is"
    total, limit = shown(found.plan.total), shown(found.limit)
    said = (
        f"fits into {limit}: {names}, {total}" if found.ok else f"nothing fits into {limit}; least is {total}: {names}"
    )
    overrides = shlex.join(override for technique in found.choice for override in technique.overrides)
    return f"\n{said}\n  {overrides}".rstrip()


def shown(size: int) -> str:
    """Bytes in the largest unit of 1000 that leaves a number above 1."""
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(number) < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.2f} {unit}"
