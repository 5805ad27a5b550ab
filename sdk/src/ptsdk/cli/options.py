"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """For verbs that load a job file: ``--no-local-code``, which acts on ``ctx.obj`` by itself."""
    return click.option(
        "--no-local-code",
        is_flag=True,
        expose_value=False,
        callback=_forbid_local_code,
        help="Refuse a job that names a class in a file (use: ./file.py:Class).",
    )(command)


def _forbid_local_code(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and ctx.obj is not None:
        ctx.obj = replace(ctx.obj, registry=ctx.obj.registry.without_local_code())
