"""``ptsdk data``: the rows of a job as the model sees them, and what became of the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.options import job_options
from ptsdk.cli.output import print_json, table
from ptsdk.errors import Problem, UserError

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext
    from ptsdk.contracts.tokenizer import Tokenizer
    from ptsdk.data.example import Document, Example
    from ptsdk.data.pipeline import EncodedData
    from ptsdk.data.report import DataReport
    from ptsdk.job import Job
    from ptsdk.registry import Registry


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--rows", type=click.IntRange(0), default=3, show_default=True, help="How many rows to show.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation"]),
    default="train",
    show_default=True,
    help="Which of the job's data sets to show.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@job_options
@click.pass_obj
def data(context: CliContext, job: Path, overrides: tuple[str, ...], rows: int, split: str, as_json: bool) -> None:
    """Show the rows of the file JOB as the model sees them, and what becomes of all of them.

    Tokens that carry loss are green; where there is no terminal they stand in [[ ]]."""
    loaded = context.load_job(job, overrides)
    with loaded.placing():
        tokenizer, encoded = read(loaded, split, context.registry)
    report = with_packing(encoded, loaded)
    shown = range(min(rows, len(encoded.store)))
    if as_json:
        described = [describe(encoded.store[i], encoded.store.place(i), tokenizer) for i in shown]
        print_json({"split": split, "report": report.as_dict(), "rows": described})
        return
    for i in shown:
        print_example(encoded.store[i], encoded.store.place(i), tokenizer)
    click.echo(summary(report, loaded.data.max_length))


def read(job: Job, split: str, registry: Registry) -> tuple[Tokenizer, EncodedData]:
    """The tokenizer of a job and the examples of one of its splits; no weight is read.

    Raises:
        UserError: the job has no such split, or its data cannot be used.
    """
    from ptsdk.checkpoint.sources import open_checkpoint
    from ptsdk.train.reading import read_data

    datasets = job.data.train if split == "train" else job.data.validation
    if not datasets:
        raise UserError(Problem(f"the job has no {split} data", "add it to the job", path=f"data.{split}"))
    path = job.model.path
    checkpoint = open_checkpoint(path, job.base, registry, weights=False) if path else None
    tokenizer = job.tokenizer.load(checkpoint, job.base)
    return tokenizer, read_data(job, datasets, tokenizer)


def with_packing(encoded: EncodedData, job: Job) -> DataReport:
    """The report, with how well the examples pack where the job packs them."""
    from ptsdk.data.packing import pack

    if not job.data.packing:
        return encoded.report
    capacity = job.data.max_length
    _, bounds = pack(encoded.store.lengths, capacity)
    packs = len(bounds) - 1
    filled = encoded.report.tokens / (packs * capacity)
    return replace(encoded.report, packing={"capacity": capacity, "sequences": packs, "efficiency": filled})


def describe(example: Example, place: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """An example for JSON."""
    documents = [
        {
            "tokens": list(document.tokens),
            "supervised": list(document.supervised),
            "text": tokenizer.decode(list(document.tokens), skip_special=False),
        }
        for document in example.documents
    ]
    return {"place": place, "documents": documents, "extras": dict(example.extras)}


def pieces(document: Document, tokenizer: Tokenizer) -> Iterator[tuple[str, bool]]:
    """The text of a document in stretches that carry loss or do not.

    A stretch is what it adds to the text before it: decoded alone, some tokenizers eat its first
    space.
    """
    end, before = 0, ""
    for on, run in groupby(document.supervised):
        start, end = end, end + sum(1 for _ in run)
        text = tokenizer.decode(list(document.tokens[:end]), skip_special=False)
        whole = text.startswith(before)
        yield (
            text[len(before) :] if whole else tokenizer.decode(list(document.tokens[start:end]), skip_special=False),
            on,
        )
        before = text


def print_example(example: Example, place: str, tokenizer: Tokenizer) -> None:
    """One row on stdout: its place, then every document."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    colours = console.is_terminal and not console.no_color
    console.print(Text(f"{place}: {example.length} tokens, {example.supervised} supervised", style="bold"))
    for document in example.documents:
        text = Text()
        for piece, on in pieces(document, tokenizer):
            visible = piece.replace("\x1b", "\u241b")  # data must not steer the terminal
            text.append(f"[[{visible}]]" if on and not colours else visible, style="bold green" if on else "dim")
        console.print(text)
        console.print()
    if example.extras:
        console.print(Text(f"extras: {dict(example.extras)}"), end="\n\n")


def summary(report: DataReport, max_length: int) -> str:
    """The report for a person."""
    share = report.supervised_tokens / report.tokens
    lines = [
        ["rows", f"{report.rows} read, {report.kept} used"],
        ["tokens", f"{report.tokens}, of which {report.supervised_tokens} supervised ({share:.1%})"],
        ["lengths", ", ".join(f"{name} {value:.0f}" for name, value in report.lengths.items())],
    ]
    if report.packing:
        packs, efficiency = report.packing["sequences"], report.packing["efficiency"]
        lines.append(["packing", f"{packs} sequences of {max_length} tokens, {efficiency:.1%} filled"])
    if report.truncated.count:
        places = ", ".join(report.truncated.places)
        lines.append(["truncated", f"{report.truncated.count} to {max_length} tokens: {places}"])
    for entry in report.as_dict()["dropped"]:
        lines.append(["dropped", f"{entry['count']} {entry['reason']}: {', '.join(entry['places'])}"])
    return table(lines)
