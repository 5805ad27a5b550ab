"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """For verbs that load a job file: ``--no-local-code``, which acts on ``ctx.obj`` by itself."""
    return click.option(
        "--no-local-code",
        is_flag=True,
        expose_value=False,
        callback=_forbid_local_code,
        help="Refuse a job that names a class in a file (use: ./file.py:Class).",
    )(command)


def adapter_option() -> Decorator:
    """``--adapter``: what is read on top of a model."""
    return click.option("--adapter", type=click.Path(path_type=Path), help="Folder of an adapter in PEFT's format.")


def dtype_option(auto: str = "bfloat16 on a GPU, float32 on a CPU") -> Decorator:
    """``--dtype``.

    Args:
        auto: what that value stands for.
    """
    return click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        show_default=True,
        help=f"Of the weights; auto is {auto}.",
    )


def slots_option() -> Decorator:
    """``--slots``: how many completions grow together."""
    return click.option("--slots", type=click.IntRange(1), default=64, show_default=True, help="Completions at a time.")


def _forbid_local_code(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and ctx.obj is not None:
        ctx.obj = replace(ctx.obj, registry=ctx.obj.registry.without_local_code())
