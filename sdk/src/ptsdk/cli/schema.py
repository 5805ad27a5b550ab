"""``ptsdk schema``: what a job may say here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ptsdk.cli.output import print_json

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext


@click.command()
@click.pass_obj
def schema(context: CliContext) -> None:
    """Print the JSON Schema (2020-12) of the job file, assembled from the installed plugins.

    An editor that knows it completes keys and marks mistakes: `ptsdk schema > job.schema.json`,
    then `# yaml-language-server: $schema=job.schema.json` as the first line of a job.
    """
    from ptsdk.job.schema import job_schema

    document, warnings = job_schema(context.registry)
    for warning in warnings:
        click.echo(f"ptsdk: {warning}", err=True)
    print_json(document)
