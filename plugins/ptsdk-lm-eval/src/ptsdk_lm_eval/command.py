"""``ptsdk eval``: how good a model is, by tasks of lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptsdk.cli.options import adapter_option, dtype_option, slots_option

if TYPE_CHECKING:
    from ptsdk.cli.main import CliContext
    from ptsdk.contracts.model import Dtype


@click.command("eval")
@click.argument("model")
@click.option("--tasks", required=True, help="Names of tasks or groups, comma-separated.")
@click.option(
    "--include-path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with tasks of your own, as YAML.",
)
@adapter_option()
@click.option("--num-fewshot", type=click.IntRange(0), help="Examples before a question; by default the task's.")
@click.option("--limit", type=click.IntRange(1), help="Only so many questions of each task.")
@click.option("--chat", is_flag=True, help="Put questions through the chat template.")
@click.option("--batch-tokens", type=click.IntRange(1), default=4096, show_default=True, help="Tokens read at a time.")
@slots_option()
@click.option("--seed", type=int, default=0, show_default=True, help="Of few-shot examples.")
@dtype_option()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def evaluate(
    context: CliContext,
    /,
    model: str,
    tasks: str,
    include_path: Path | None,
    adapter: Path | None,
    dtype: Dtype,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure MODEL, a folder, file or URL, on tasks of lm-evaluation-harness."""
    import torch

    from ptsdk.cli.output import print_json
    from ptsdk.generate.loading import load_pretrained
    from ptsdk_lm_eval.running import find_tasks, run_tasks

    found = find_tasks([name.strip() for name in tasks.split(",") if name.strip()], include_path)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    results = run_tasks(load_pretrained(model, context.registry, Path(), dtype, adapter, device), found, **options)
    if as_json:
        print_json({"results": results})
        return
    for task, values in results.items():
        for metric, value in values.items():
            click.echo(f"{task:30} {metric:30} {value:.4f}")
