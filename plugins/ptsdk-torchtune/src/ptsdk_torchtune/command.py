"""``ptsdk migrate CONFIG``: a job made of a config of torchtune."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write the job here, which must not exist; else print it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: {job, notes}.")
def migrate(config: Path, out: Path | None, as_json: bool) -> None:
    """Make a job of CONFIG, a YAML file of one of torchtune's recipes, and tell what is otherwise in it."""
    import yaml

    from ptsdk.checkpoint.files import atomic_file
    from ptsdk.cli.output import print_json
    from ptsdk.errors import UserError
    from ptsdk.job.source import read_source
    from ptsdk_torchtune.config import Config
    from ptsdk_torchtune.job import job_of

    if out is not None and out.exists():
        raise UserError(f"{out} exists already", hint="choose another --out, or move it away")
    read = Config(read_source(config))
    job = job_of(read)
    if read.problems:
        raise UserError(*read.problems)
    notes = [f"{path}: {text}" for path, text in read.notes]
    if as_json:
        print_json({"job": job, "notes": notes})
        return
    head = "".join(f"# {line}\n" for line in (f"made of torchtune's {config.name}; what is otherwise here:", *notes))
    text = head + yaml.safe_dump(job, sort_keys=False, allow_unicode=True)
    if out is None:
        click.echo(text, nl=False)
        return
    with atomic_file(out) as partial:
        partial.write_text(text, encoding="utf-8")
    click.echo(f"wrote {out}; `ptsdk check {out}` tells whether it can run here", err=True)
