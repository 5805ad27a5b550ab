"""From names of tasks to numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from ptsdk.data.templates import has_template
from ptsdk.errors import Problem, UserError
from ptsdk.generate.loading import Pretrained
from ptsdk.generate.stopping import stop_ids
from ptsdk_lm_eval.model import PtsdkLM

SHOWN = 10
"""Unknown tasks that are named."""


class Tasks(NamedTuple):
    """Names that are known to a manager."""

    names: list[str]
    manager: TaskManager


def find_tasks(names: list[str], include_path: Path | None) -> Tasks:
    """Tasks and groups of the harness, and of a folder.

    Raises:
        UserError: no names, or one that nobody knows.
    """
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    known = [name for name in names if manager.match_tasks([name])]
    if unknown := [name for name in names if name not in known]:
        hint = "`lm-eval ls tasks` lists those of the harness; --include-path adds a folder of your own"
        raise UserError(Problem(f"no such task: {', '.join(unknown[:SHOWN])}", hint, path="tasks"))
    if not known:
        raise UserError(Problem("no task is named", "give names, as in --tasks arc_easy,hellaswag", path="tasks"))
    return Tasks(names, manager)


def run_tasks(
    loaded: Pretrained,
    tasks: Tasks,
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
    chat: bool = False,
    batch_tokens: int = 4096,
    slots: int = 64,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """``{task: {metric: value}}``, groups included; a metric bears its filter's name where it has one, and its
    standard error stands beside it.

    Raises:
        UserError: the model brings no tokenizer, or no chat template where ``chat`` asks for one.
    """
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        raise UserError(f"{loaded.checkpoint.path} brings no tokenizer", hint="put its files beside the weights")
    if chat and not has_template(tokenizer):
        raise UserError("the tokenizer has no chat template", hint="leave --chat away")
    ends = stop_ids(loaded.checkpoint, tokenizer, chat=chat)
    model = PtsdkLM(loaded.model, tokenizer, ends, loaded.checkpoint.path.name, batch_tokens, slots)
    found: Any = simple_evaluate(
        model,
        tasks=list(tasks.names),
        task_manager=tasks.manager,
        num_fewshot=num_fewshot,
        limit=limit,
        apply_chat_template=chat,
        log_samples=False,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    return {task: numbers(values) for task, values in found["results"].items()}


def numbers(values: dict[str, Any]) -> dict[str, float]:
    """The metrics of a task by name; the harness writes ``acc,none`` for one without a filter."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and "," in name
    }
