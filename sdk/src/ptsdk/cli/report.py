"""``ptsdk report RUN...``: what became of a run, or of several beside each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ptsdk.checkpoint.summary import Curve, Summary

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 48
"""Columns of a curve."""


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write Markdown here, which must not exist; else print it."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: a list, one object a run.")
def report(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Tell what became of each RUN, an output directory: how far it came, its losses, its speed, what it was made of.

    Of several runs: a table, one row a run."""
    from ptsdk.checkpoint.files import atomic_file
    from ptsdk.checkpoint.summary import summarise
    from ptsdk.cli.output import print_json
    from ptsdk.errors import UserError

    if out is not None and out.exists():
        raise UserError(f"{out} exists already", hint="choose another --out, or move it away")
    found = [summarise(run) for run in runs]
    text = page(found[0]) if len(found) == 1 else beside(found)
    if out is not None:
        with atomic_file(out) as partial:
            partial.write_text(text, encoding="utf-8")
        click.echo(f"wrote {out}", err=True)
    if as_json:
        print_json([one.as_dict() for one in found])
    elif out is None:
        click.echo(text, nl=False)


def page(run: Summary) -> str:
    """One run, in Markdown."""
    lines = [f"# {run.run}", "", *_facts(run), ""]
    if run.curves:
        rows = [(f"`{name}`", *_numbers(curve), f"`{drawn(curve.values)}`") for name, curve in run.curves.items()]
        lines += [*markdown(("", "first", "last", "least", "most", ""), rows), ""]
    made = [f"{section} {name}" for section, name in run.parts.items()]
    lines += [f"Made of: {', '.join(made)}; {_settings(run)}.", "", f"On: {_machine(run)}."]
    return "\n".join(lines) + "\n"


def beside(runs: Sequence[Summary]) -> str:
    """Several runs, a row each, in Markdown; the parts of their jobs that differ are columns."""
    sections = [name for name in runs[0].parts if len({run.parts.get(name) for run in runs}) > 1]
    curves = [name for name in ("loss", "val/loss", "reward/mean") if any(name in run.curves for run in runs)]
    head = ("run", *sections, "lr", "steps", *curves, "tokens/s", "peak memory")
    rows = [
        (
            str(run.run),
            *(run.parts.get(section, "") for section in sections),
            "" if run.lr is None else f"{run.lr:g}",
            f"{run.step} of {run.total_steps}",
            *(_last(run.curves.get(name)) for name in curves),
            _rate(run),
            _memory(run),
        )
        for run in runs
    ]
    return "\n".join(markdown(head, rows)) + "\n"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its columns aligned for who reads it as text."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * max(width, 3) for width in widths], *rows]
    return [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines]


def drawn(values: Sequence[float], width: int = WIDTH) -> str:
    """A curve in one line: the mean of each stretch, from the least, an empty bar, to the most."""
    stretches = min(width, len(values))
    cuts = [len(values) * i // stretches for i in range(stretches + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, span = min(means), max(means) - min(means)
    return "".join(BARS[round((mean - low) / span * (len(BARS) - 1)) if span > 0 else 0] for mean in means)


def _facts(run: Summary) -> list[str]:
    state = "finished" if run.finished else "not finished"
    lines = [f"{state}: step {run.step} of {run.total_steps}, {run.epoch:.2f} epochs, {run.tokens:,} tokens"]
    if not run.curves:
        lines.append("no metrics: the job has no logger that writes them (jsonl), or no step was taken")
    if run.step:
        speed = f"{_rate(run)} tokens/s (median step), " if run.tokens_per_second is not None else ""
        lines.append(f"{speed}{run.seconds:,.0f} s in steps, peak memory {_memory(run) or 'unknown'}")
    if run.checkpoints:
        lines.append(f"checkpoints: {', '.join(map(str, run.checkpoints))}")
    return [f"* {line}" for line in lines]


def _settings(run: Summary) -> str:
    settings = {"lr": run.lr, "batch size": run.batch_size, "seed": run.seed}
    return ", ".join(f"{name} {value:g}" for name, value in settings.items() if value is not None)


def _machine(run: Summary) -> str:
    environment = run.environment
    processes = environment.get("world_size") or 1
    where = [environment.get("processor") or environment.get("device"), environment.get("system")]
    versions = [f"{name} {environment[name]}" for name in ("python", "torch", "cuda") if environment.get(name)]
    return ", ".join(
        [*(str(part) for part in where if part), *versions, f"{processes} process" + "es" * (processes > 1)]
    )


def _numbers(curve: Curve) -> tuple[str, ...]:
    extremes = ((curve.least, curve.least_step), (curve.most, curve.most_step))
    return f"{curve.first:.4g}", f"{curve.last:.4g}", *(f"{value:.4g} at {step}" for value, step in extremes)


def _last(curve: Curve | None) -> str:
    return f"{curve.last:.4g}" if curve else ""


def _rate(run: Summary) -> str:
    return "" if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f}"


def _memory(run: Summary) -> str:
    return "" if run.peak_memory_bytes is None else f"{run.peak_memory_bytes / 2**30:.2f} GiB"
