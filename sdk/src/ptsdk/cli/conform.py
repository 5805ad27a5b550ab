"""``ptsdk conform``: whether what a dist contributes does what its kinds promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ptsdk.cli.output import print_json
from ptsdk.errors import Problem, UserError

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext
    from ptsdk.testing.running import Report


@click.command()
@click.argument("dist")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def conform(ctx: click.Context, dist: str, as_json: bool) -> None:
    """Run the conformance suites over every component of the installed DIST.

    Exit code 1 when something fails. An option without a default is given the first of its examples.
    """
    context: CliContext = ctx.obj
    try:
        from ptsdk.testing import finding, running
    except ModuleNotFoundError as error:
        if error.name != "pytest":
            raise
        raise UserError(Problem("the suites run in pytest, which is missing", "pip install 'ptsdk[testing]'")) from None
    record = finding.installed(context.registry, dist)
    report = running.conform(record.dist, context.plugins.options.environment())
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    ctx.exit(0 if report.ok else 1)


def _print(report: Report) -> None:
    for outcome in report.outcomes:
        mark = click.style("BAD ", fg="red", bold=True) if outcome.failed else click.style("ok  ", fg="green")
        counts = f"{len(outcome.passed)} passed"
        counts += f", {len(outcome.failed)} failed" if outcome.failed else ""
        counts += f", {len(outcome.skipped)} skipped" if outcome.skipped else ""
        click.echo(f"{mark} {outcome.kind} {outcome.component}: {counts}")
        for message in dict.fromkeys(outcome.failed.values()):
            tests = ", ".join(test for test, told in outcome.failed.items() if told == message)
            lines = message.splitlines() or [""]
            click.echo("\n".join([f"       {tests}: {lines[0]}", *(f"           {line}" for line in lines[1:])]))
        for reason in dict.fromkeys(outcome.skipped.values()):
            click.echo(f"       {reason}")
    passed = sum(len(outcome.passed) for outcome in report.outcomes)
    click.echo(f"{report.dist} {'conforms' if report.ok else 'does not conform'}: {passed} tests passed")
